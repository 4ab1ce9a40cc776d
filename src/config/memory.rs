//! How much memory the process may take: what the system allows, and the share of it that is ours.
//!
//! Owns: the setting `memory.limit` and the question to the system. Does not own: how the limit is divided
//! (`storage::budget`).

use std::fmt;
use std::path::Path;

use super::units::Size;

/// Taken where the system does not say how much there is.
const UNKNOWN_BYTES: u64 = 2 << 30;
/// Version 1 of cgroups says "no limit" with a number near the largest.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// A number of bytes, or a part of what the system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many of a hundred parts.
    Percent(u8),
    /// So many bytes.
    Bytes(Size),
}

impl MemoryLimit {
    /// Reads `75%` or `2GiB`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(number) => {
                number.trim_end().parse().ok().filter(|percent| (1..=100).contains(percent)).map(Self::Percent)
            }
            None => Size::parse(text).filter(|size| size.0 > 0).map(Self::Bytes),
        }
    }

    /// In bytes, on a system that allows `allowed`.
    pub fn of(self, allowed: u64) -> usize {
        let bytes = match self {
            Self::Percent(percent) => allowed / 100 * u64::from(percent),
            Self::Bytes(size) => size.0,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(size) => size.fmt(f),
        }
    }
}

/// Bytes that the system allows this process: the least of the limits of its cgroups (version 1 or 2, those above it
/// counted) and of the machine's memory. `root` is `/` but in tests.
pub fn allowed_bytes(root: &Path) -> u64 {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let mut least = read("proc/meminfo").and_then(|text| machine_bytes(&text));
    for line in read("proc/self/cgroup").unwrap_or_default().lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (folder, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the group may be named as the host sees it, while its files lie at the top.
        let mut group = group.trim_matches('/');
        loop {
            let limit = read(&format!("{folder}/{group}/{file}")).and_then(|text| text.trim().parse::<u64>().ok());
            if let Some(limit) = limit.filter(|limit| *limit < NO_LIMIT_BYTES) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
            if group.is_empty() {
                break;
            }
            group = group.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    least.unwrap_or(UNKNOWN_BYTES)
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("creates");
            std::fs::write(path, text).expect("writes");
        }
        allowed_bytes(root.path())
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = ("proc/meminfo", "MemTotal:       1048576 kB\nMemFree: 5 kB\n");
        assert_eq!(system(&[machine]), 1 << 30);
        assert_eq!(system(&[]), UNKNOWN_BYTES);
        // Version 2: the group above is tighter.
        let group = ("proc/self/cgroup", "0::/pods/one\n");
        let free = ("sys/fs/cgroup/pods/one/memory.max", "max\n");
        assert_eq!(system(&[machine, group, free]), 1 << 30);
        assert_eq!(system(&[machine, group, free, ("sys/fs/cgroup/pods/memory.max", "268435456\n")]), 256 << 20);
        // Version 2 in a container, whose own group is the top.
        assert_eq!(system(&[machine, group, ("sys/fs/cgroup/memory.max", "1000\n")]), 1000);
        // Version 1, with its number for "none" above.
        let group = ("proc/self/cgroup", "5:cpu:/x\n4:cpuset,memory:/a\n");
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(system(&[machine, group, none]), 1 << 30);
        let own = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000000\n");
        assert_eq!(system(&[machine, group, none, own]), 5_000_000);
    }

    #[test]
    fn limits_read_and_print() {
        for text in ["75%", "2GiB", "100%"] {
            assert_eq!(MemoryLimit::parse(text).expect("reads").to_string(), text);
        }
        for text in ["0%", "101%", "-1%", "x", "", "0", "0MiB"] {
            assert_eq!(MemoryLimit::parse(text), None, "{text}");
        }
        assert_eq!(MemoryLimit::Percent(75).of(1000), 750);
        assert_eq!(MemoryLimit::Bytes(Size(5)).of(1000), 5);
    }
}
