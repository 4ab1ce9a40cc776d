//! Sets of addresses: `ip("10.0.0.0/8")`, in lines and in labels.
//!
//! Owns: the three spellings of a set, and finding addresses in a line.

use std::net::IpAddr;

/// One address, a network, or a range: all of them from the first to the last address, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpSet {
    first: IpAddr,
    last: IpAddr,
}

impl IpSet {
    /// Reads `1.2.3.4`, `1.2.3.0/24` or `1.2.3.4-1.2.3.9`, and the same with IPv6.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("ip: ({text}) is invalid: not an address, a range or a network");
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| invalid());
        if let Some((network, bits)) = text.split_once('/') {
            let bits = bits.parse::<u32>().map_err(|_| invalid())?;
            return Self::network(address(network)?, bits).ok_or_else(invalid);
        }
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(invalid());
        }
        Ok(Self { first, last })
    }

    fn network(address: IpAddr, bits: u32) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shr(bits).unwrap_or(0);
                let low = u32::from(v4) & !mask;
                (bits <= 32).then(|| Self { first: IpAddr::V4(low.into()), last: IpAddr::V4((low | mask).into()) })
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shr(bits).unwrap_or(0);
                let low = u128::from(v6) & !mask;
                (bits <= 128).then(|| Self { first: IpAddr::V6(low.into()), last: IpAddr::V6((low | mask).into()) })
            }
        }
    }

    /// Whether an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether a text is an address of the set.
    pub fn contains_text(&self, text: &str) -> bool {
        text.parse().is_ok_and(|address| self.contains(address))
    }

    /// Whether an address of the set stands in `line`.
    pub fn found_in(&self, line: &str) -> bool {
        let bytes = line.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let charset: fn(u8) -> bool = if begins_v4(rest) {
                |b| b.is_ascii_digit() || b == b'.'
            } else if begins_v6(rest) {
                |b| b.is_ascii_hexdigit() || b == b':' || b == b'.'
            } else {
                at += 1;
                continue;
            };
            let length = rest.iter().take_while(|b| charset(**b)).count();
            if line.get(at..at + length).is_some_and(|token| self.contains_text(token)) {
                return true;
            }
            at += length.max(1);
        }
        false
    }
}

/// A digit and a dot within the next three bytes.
fn begins_v4(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_digit) && bytes.iter().skip(1).take(3).any(|b| *b == b'.')
}

/// `::` and a hex digit, or one to four hex digits and a colon.
fn begins_v6(bytes: &[u8]) -> bool {
    let digits = bytes.iter().take(4).take_while(|b| b.is_ascii_hexdigit()).count();
    match digits {
        0 => bytes.starts_with(b"::") && bytes.get(2).is_some_and(u8::is_ascii_hexdigit),
        _ => bytes.get(digits) == Some(&b':'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_in_three_spellings() {
        let check = |set: &str, yes: &[&str], no: &[&str]| {
            let set = IpSet::parse(set).unwrap();
            assert!(yes.iter().all(|text| set.contains_text(text)), "{set:?} {yes:?}");
            assert!(!no.iter().any(|text| set.contains_text(text)), "{set:?} {no:?}");
        };
        check("10.0.0.0/8", &["10.0.0.1", "10.255.255.255"], &["11.0.0.0", "::1", "x"]);
        check("192.168.1.1-192.168.1.80", &["192.168.1.1", "192.168.1.80"], &["192.168.1.81"]);
        check("2001:db8::/64", &["2001:db8::1"], &["2001:db8:0:1::1", "1.2.3.4"]);
        check("0.0.0.0/0", &["255.255.255.255"], &["::"]);
        check("::/0", &["ffff::"], &["0.0.0.0"]);
        check("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.4"]);
        for bad in ["", "nope", "10.0.0.0/33", "1.2.3.4-1.2.3.3", "1.2.3.4-::1", "10.0.0/8"] {
            assert!(IpSet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_found_in_lines() {
        let set = IpSet::parse("10.0.0.0/8").unwrap();
        for (line, expected) in [
            ("from 10.1.2.3 port", true),
            ("from 10.1.2.3:80", true),
            ("from 110.1.2.3", false),
            ("v10.1.2.3.4", false),
            ("", false),
            ("1é0.1.2.3", false),
        ] {
            assert_eq!(set.found_in(line), expected, "{line}");
        }
        assert!(IpSet::parse("::1").unwrap().found_in("[::1]:80 x"));
        assert!(IpSet::parse("2001:db8::/32").unwrap().found_in("src=2001:db8::5 dst"));
    }
}
