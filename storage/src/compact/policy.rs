//! Which blocks of a day become one.
//!
//! Owns: the choice, a pure function of sizes and levels. Does not own: reading and writing (`run`).
//!
//! Blocks that one compaction wrote share their place in the order of arrival and follow each other in the order of
//! rows: together they are one run. What counts for readers is the number of runs: each is one more source of a merge.
//! Runs of like size become one, so that a row is rewritten a logarithmic number of times, and a run that is large
//! enough stays as it is.
//!
//! Invariants
//! 1. A choice is a stretch of neighbours in the order of arrival, and no blocked block is among them.
//! 2. Applying choices until there is none ends, and leaves at most [`RUNS_MAX`] runs that are not sealed between two
//!    blocks that may not be touched, whatever came in whichever order.

use std::ops::Range;

/// A run of this size is never merged again: that would cost more than one source less saves.
pub(crate) const SEALED_BYTES: u64 = 1 << 30;
/// Runs that are worth a merge while their day still grows.
const FAN_IN_MIN: usize = 8;
/// Runs of one merge: bounds its memory.
pub(crate) const FAN_IN_MAX: usize = 16;
/// More runs than this are merged even if their sizes differ much.
const RUNS_MAX: usize = 24;
/// While a day grows, the others of a merge have together so many times the bytes of its largest run: each merge makes
/// of a row's run one three times as large, or more.
const GROWTH_TIMES: u64 = 2;
/// When it grows no more, its runs are merged unless almost all would only be copied: the largest has at most so many
/// times the bytes of the others.
const CLOSED_LARGEST_TIMES: u64 = 8;
/// A single flushed block of this size is worth the stronger compression of compacted ones.
const REWRITE_BYTES_MIN: u64 = 256 << 10;

/// What the policy knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// First and last place in the order of arrival.
    pub(crate) order: (u64, u64),
    /// How often its rows were rewritten.
    pub(crate) level: u32,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// It cannot be read, or may not be touched.
    pub(crate) blocked: bool,
}

/// How eager to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// More blocks will come soon.
    Growing,
    /// The day is over.
    Closed,
    /// Somebody asked for it: leave one run.
    Everything,
}

/// Consecutive blocks that came out of one merge, or a single one.
#[derive(Clone, Debug)]
struct Run {
    blocks: Range<usize>,
    bytes: u64,
    level: u32,
}

/// The next blocks to merge of one day's, which stand in the order of arrival: their places.
pub(crate) fn choose(blocks: &[Candidate], mode: Mode) -> Option<Range<usize>> {
    segments(blocks).iter().find_map(|runs| choose_runs(runs, mode))
}

/// The runs between blocks that may not be touched.
fn segments(blocks: &[Candidate]) -> Vec<Vec<Run>> {
    let mut segments = vec![Vec::new()];
    let mut at = 0;
    while let Some(first) = blocks.get(at) {
        let same = |other: &&Candidate| first.level > 0 && other.order == first.order && other.level > 0;
        let more = blocks[at + 1..].iter().take_while(same).count();
        let run = Run {
            blocks: at..at + 1 + more,
            bytes: blocks[at..=at + more].iter().map(|block| block.bytes).sum(),
            level: first.level,
        };
        let blocked = blocks[run.blocks.clone()].iter().any(|block| block.blocked);
        at = run.blocks.end;
        if blocked || run.bytes >= SEALED_BYTES {
            segments.push(Vec::new());
        } else if let Some(segment) = segments.last_mut() {
            segment.push(run);
        }
    }
    segments
}

fn choose_runs(runs: &[Run], mode: Mode) -> Option<Range<usize>> {
    let others = |window: &[Run]| bytes(window) - largest(window);
    let window = match mode {
        Mode::Growing => cheapest(runs, FAN_IN_MIN, |window| largest(window) * GROWTH_TIMES <= others(window)),
        Mode::Closed => cheapest(runs, 2, |window| largest(window) <= CLOSED_LARGEST_TIMES * others(window)),
        Mode::Everything => cheapest(runs, 2, |_| true),
    };
    let too_many = || if runs.len() > RUNS_MAX { cheapest(runs, FAN_IN_MIN, |_| true) } else { None };
    let alone = || {
        let lone = runs.iter().find(|run| run.level == 0 && run.bytes >= REWRITE_BYTES_MIN);
        if mode == Mode::Growing { None } else { lone.map(|run| run.blocks.clone()) }
    };
    window.or_else(too_many).or_else(alone)
}

/// Of all stretches of at least `fan_in_min` runs that are `worth` it: one of the longest, and of these the one with the
/// fewest bytes.
fn cheapest(runs: &[Run], fan_in_min: usize, worth: impl Fn(&[Run]) -> bool) -> Option<Range<usize>> {
    let longest = FAN_IN_MAX.min(runs.len());
    (fan_in_min..=longest).rev().find_map(|length| {
        let windows = runs.windows(length).filter(|window| worth(window));
        let chosen = windows.min_by_key(|window| bytes(window))?;
        Some(chosen.first()?.blocks.start..chosen.last()?.blocks.end)
    })
}

fn bytes(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.bytes).sum()
}

fn largest(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.bytes).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: u64 = 1 << 20;
    /// Bytes of a file that a merge writes.
    const FILE_BYTES: u64 = 256 * MB;

    /// A day's blocks as flushes and merges leave them.
    #[derive(Default)]
    struct DayOf {
        blocks: Vec<Candidate>,
        next: u64,
        written: u64,
    }

    impl DayOf {
        fn flush(&mut self, bytes: u64) {
            self.next += 1;
            self.blocks.push(Candidate { order: (self.next, self.next), level: 0, bytes, blocked: false });
        }

        /// Merges until nothing is left to do.
        fn settle(&mut self, mode: Mode) {
            let mut steps = 0;
            while let Some(chosen) = choose(&self.blocks, mode) {
                let old = &self.blocks[chosen.clone()];
                assert!(old.iter().all(|block| !block.blocked));
                let order = (old[0].order.0, old.iter().map(|block| block.order.1).max().unwrap_or(0));
                let level = old.iter().map(|block| block.level).max().unwrap_or(0) + 1;
                let mut bytes: u64 = old.iter().map(|block| block.bytes).sum();
                self.written += bytes;
                let mut new = Vec::new();
                while bytes > 0 {
                    let file = bytes.min(FILE_BYTES);
                    new.push(Candidate { order, level, bytes: file, blocked: false });
                    bytes -= file;
                }
                self.blocks.splice(chosen, new);
                steps += 1;
                assert!(steps < 10_000, "does not end");
            }
        }

        fn runs(&self) -> usize {
            segments(&self.blocks).iter().map(Vec::len).sum()
        }

        fn bytes(&self) -> u64 {
            self.blocks.iter().map(|block| block.bytes).sum()
        }
    }

    #[test]
    fn a_day_of_flushes_is_rewritten_about_twice_and_becomes_one_run() {
        let mut day = DayOf::default();
        for _ in 0..144 {
            day.flush(2 * MB);
            day.settle(Mode::Growing);
            assert!(day.runs() <= RUNS_MAX, "{}", day.runs());
        }
        assert!(day.written <= 3 * day.bytes(), "{} of {}", day.written, day.bytes());
        day.settle(Mode::Closed);
        assert_eq!((day.runs(), day.blocks.len()), (1, 2));
        assert!(day.written <= 4 * day.bytes());
    }

    #[test]
    fn late_rows_do_not_copy_a_large_day_again_and_again() {
        let mut day = DayOf::default();
        day.flush(900 * MB);
        day.settle(Mode::Closed);
        let before = day.written;
        for _ in 0..500 {
            day.flush(MB / 100);
            day.settle(Mode::Closed);
            // Each late run is at least eight times the next.
            assert!(day.runs() <= 8, "{}", day.runs());
        }
        assert!(day.written - before < 100 * MB, "{}", (day.written - before) / MB);
    }

    #[test]
    fn large_runs_stay() {
        let mut day = DayOf::default();
        for _ in 0..40 {
            day.flush(600 * MB);
            day.settle(Mode::Everything);
        }
        assert!(day.blocks.iter().filter(|block| block.bytes < FILE_BYTES / 2).count() <= 20);
        assert!(day.written <= 3 * day.bytes());
    }

    #[test]
    fn a_lone_block_is_compressed_again_only_when_its_day_is_over() {
        let mut day = DayOf::default();
        day.flush(10 * MB);
        assert_eq!(choose(&day.blocks, Mode::Growing), None);
        assert_eq!(choose(&day.blocks, Mode::Closed), Some(0..1));
        day.settle(Mode::Closed);
        assert_eq!((day.blocks.len(), day.blocks[0].level), (1, 1));
    }

    #[test]
    fn what_cannot_be_read_parts_the_others() {
        let mut day = DayOf::default();
        (0..9).for_each(|_| day.flush(MB));
        day.blocks[4].blocked = true;
        day.settle(Mode::Everything);
        assert_eq!(day.blocks.iter().map(|block| block.bytes / MB).collect::<Vec<_>>(), [4, 1, 4]);
    }

    proptest! {
        #[test]
        fn any_pattern_ends_with_few_runs(sizes in proptest::collection::vec((1_u64..40, 0_u64..3), 1..120)) {
            let mut day = DayOf::default();
            for (exponent, settle) in sizes {
                day.flush(1 << (exponent % 31));
                if settle == 0 {
                    day.settle(Mode::Growing);
                    prop_assert!(segments(&day.blocks).iter().all(|runs| runs.len() <= RUNS_MAX));
                }
                prop_assert!(day.blocks.is_sorted_by_key(|block| block.order));
            }
            day.settle(Mode::Everything);
            prop_assert!(segments(&day.blocks).iter().all(|runs| runs.len() <= 1));
        }
    }
}
