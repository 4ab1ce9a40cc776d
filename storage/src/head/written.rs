//! What the tables of one tenant already have, so that a flush does not write it again: identities by day, and
//! metadata rows.
//!
//! Owns: these sets, bounded. Forgetting costs a repeated row, which readers and compaction drop; so does a restart.

use ahash::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::model::identity::IdentityId;
use crate::model::time::Day;

/// Days that are remembered; late data beyond them writes its identities once more.
const DAYS_MAX: usize = 8;
/// Identities that are remembered, of one tenant and of all together.
pub const IDENTITIES_MAX: usize = 4 << 20;
/// Metadata rows that are remembered.
const TEXTS_MAX: usize = 1 << 20;

/// What was committed for one tenant and signal.
#[derive(Debug)]
pub struct Written {
    days: HashMap<Day, Seen, RandomState>,
    round: u64,
    /// Hashes of the metadata rows of one day: each day has its own, since it may go with its day.
    texts_day: Day,
    texts: HashSet<u128, RandomState>,
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<IdentityId, RandomState>,
    /// When it was last used.
    round: u64,
}

impl Default for Written {
    fn default() -> Self {
        Self { days: HashMap::default(), round: 0, texts_day: Day(i32::MIN), texts: HashSet::default() }
    }
}

impl Written {
    /// Whether the identity table has `id` on `day`.
    pub fn contains(&self, day: Day, id: IdentityId) -> bool {
        self.days.get(&day).is_some_and(|seen| seen.ids.contains(&id))
    }

    /// Identities that are remembered, those of several days counted for each.
    pub fn identities(&self) -> usize {
        self.days.values().map(|seen| seen.ids.len()).sum()
    }

    /// Whether the table of metadata has the row with this hash on `day`.
    pub fn contains_text(&self, day: Day, key: u128) -> bool {
        self.texts_day == day && self.texts.contains(&key)
    }

    /// Remembers committed metadata rows; those of another day are forgotten.
    pub fn extend_texts(&mut self, day: Day, keys: Vec<u128>) {
        if self.texts_day != day || self.texts.len() + keys.len() > TEXTS_MAX {
            self.texts.clear();
        }
        self.texts_day = day;
        self.texts.extend(keys);
    }

    /// Remembers committed identities.
    pub fn extend(&mut self, day: Day, ids: impl Iterator<Item = IdentityId>) {
        self.round += 1;
        let seen = self.days.entry(day).or_default();
        seen.round = self.round;
        seen.ids.extend(ids);
        while self.days.len() > DAYS_MAX || self.identities() > IDENTITIES_MAX {
            let Some(oldest) = self.days.iter().min_by_key(|(_, seen)| seen.round).map(|(day, _)| *day) else { break };
            self.days.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_days_used_last_are_remembered() {
        let mut written = Written::default();
        for day in 0..=8 {
            written.extend(Day(day), [IdentityId(1)].into_iter());
            written.extend(Day(0), [IdentityId(2)].into_iter());
        }
        assert!(written.contains(Day(0), IdentityId(1)) && written.contains(Day(0), IdentityId(2)));
        assert!(!written.contains(Day(1), IdentityId(1)), "the day that was not used for longest is forgotten");
        assert!(written.contains(Day(8), IdentityId(1)));
        assert!(!written.contains(Day(8), IdentityId(2)));
    }
}
