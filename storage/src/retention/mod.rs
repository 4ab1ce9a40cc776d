//! How long data is kept: rules, and what they mean at a moment.
//!
//! Owns: [`RetentionPolicy`] and [`Cutoffs`], pure values. Does not own: leaving rows out of scans (`engine::visible`),
//! dropping and rewriting blocks (`engine::retain`).
//!
//! The first rule wins whose signal, tenant and matchers fit and that says an age; so an exception stands before what
//! it excepts, and may keep longer as well as shorter. What no rule fits is kept for ever.
//!
//! Invariants
//! 1. A row older than its rule's age is in no answer from that moment on.
//! 2. A block goes whole only when each of its rows is too old, or when its date is the oldest of a signal whose size is
//!    over its limit. The newest date never goes by size.

use std::time::Duration;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::tenant::Tenant;
use crate::model::time::Day;
use crate::signal::Signal;

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct RetentionRule {
    /// Of this signal; `None`: of each.
    pub signal: Option<Signal>,
    /// Of this tenant; `None`: of each.
    pub tenant: Option<Tenant>,
    /// Facts whose identity passes all of these; none: all facts.
    pub matchers: Vec<Matcher>,
    /// Kept for so long, by the fact's own time; zero: for ever. `None`: the rule says nothing of ages.
    pub age: Option<Duration>,
    /// Blocks of a signal and tenant may take so many bytes. Only without matchers, since blocks go by date.
    pub bytes: Option<u64>,
}

impl RetentionRule {
    fn fits(&self, signal: Signal, tenant: &Tenant) -> bool {
        self.signal.is_none_or(|own| own == signal) && self.tenant.as_ref().is_none_or(|own| own == tenant)
    }
}

/// All rules, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct RetentionPolicy {
    /// The first that fits wins.
    pub rules: Vec<RetentionRule>,
}

impl RetentionPolicy {
    /// What the rules of ages mean at `now_ns` for one signal and tenant.
    pub(crate) fn cutoffs(&self, signal: Signal, tenant: &Tenant, now_ns: i64) -> Cutoffs {
        let mut cutoffs = Cutoffs { groups: Vec::new(), rest: i64::MIN };
        for (rule, key) in self.rules.iter().zip(0_u64..) {
            let Some(age) = rule.age.filter(|_| rule.fits(signal, tenant)) else { continue };
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            let cutoff = if age == 0 { i64::MIN } else { now_ns.saturating_sub(age) };
            if rule.matchers.is_empty() {
                cutoffs.rest = cutoff;
                break;
            }
            cutoffs.groups.push(Group { key: u64::MAX - key, matchers: rule.matchers.clone(), cutoff });
        }
        cutoffs
    }

    /// The longest that any fact of `signal` and `tenant` is kept; `None`: some are kept for ever. Of all tenants if none
    /// is given.
    pub fn age_max(&self, signal: Signal, tenant: Option<&Tenant>) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        for rule in &self.rules {
            let of_tenant = match tenant {
                Some(tenant) => rule.fits(signal, tenant),
                None => rule.signal.is_none_or(|own| own == signal),
            };
            let Some(age) = rule.age.filter(|_| of_tenant) else { continue };
            if age.is_zero() {
                return None;
            }
            longest = longest.max(age);
            if rule.matchers.is_empty() && (tenant.is_some() || rule.tenant.is_none()) {
                return Some(longest);
            }
        }
        None
    }

    /// How many bytes the blocks of `signal` and `tenant` may take; `None`: any.
    pub(crate) fn bytes_max(&self, signal: Signal, tenant: &Tenant) -> Option<u64> {
        let rule = self.rules.iter().find(|rule| rule.bytes.is_some() && rule.fits(signal, tenant));
        rule.and_then(|rule| rule.bytes)
    }
}

/// Facts of identities that pass `matchers` and no group before.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Names the group for as long as the policy stands.
    pub(crate) key: u64,
    pub(crate) matchers: Vec<Matcher>,
    /// The first nanosecond that is kept; `i64::MIN`: all.
    pub(crate) cutoff: i64,
}

/// From when on facts are kept.
#[derive(Clone, Debug)]
pub(crate) struct Cutoffs {
    /// The first whose matchers pass says it.
    pub(crate) groups: Vec<Group>,
    /// What holds for all others.
    pub(crate) rest: i64,
}

impl Cutoffs {
    /// Nothing before this is kept.
    pub(crate) fn floor(&self) -> i64 {
        self.groups.iter().map(|group| group.cutoff).fold(self.rest, i64::min)
    }

    /// Everything from here on is kept.
    pub(crate) fn ceiling(&self) -> i64 {
        self.groups.iter().map(|group| group.cutoff).fold(self.rest, i64::max)
    }

    /// How many of the rules are over for the whole of `day`.
    pub(crate) fn expired(&self, day: Day) -> usize {
        let end = day.range().end;
        self.groups.iter().map(|group| group.cutoff).chain([self.rest]).filter(|cutoff| *cutoff >= end).count()
    }

    /// From when on facts with these labels are kept.
    pub(crate) fn of(&self, labels: &Labels) -> i64 {
        let passes = |group: &&Group| group.matchers.iter().all(|matcher| matcher.matches_labels(labels));
        self.groups.iter().find(passes).map_or(self.rest, |group| group.cutoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matcher::MatchOp;

    const DAY: Duration = Duration::from_secs(86_400);

    fn rule(signal: Option<Signal>, tenant: Option<&str>, app: Option<&str>, days: u32) -> RetentionRule {
        RetentionRule {
            signal,
            tenant: tenant.map(|name| Tenant::new(name).expect("valid")),
            matchers: app.map(|app| Matcher::new("app", MatchOp::Equal, app).expect("valid")).into_iter().collect(),
            age: Some(DAY * days),
            bytes: None,
        }
    }

    #[test]
    fn the_first_rule_that_fits_wins() {
        let policy = RetentionPolicy {
            rules: vec![
                rule(Some(Signal::Logs), Some("a"), Some("debug"), 1),
                rule(Some(Signal::Logs), None, Some("audit"), 365),
                rule(Some(Signal::Logs), Some("a"), None, 7),
                rule(Some(Signal::Logs), None, None, 30),
            ],
        };
        let day_ns = 86_400_000_000_000;
        let now = 1000 * day_ns;
        let kept = |tenant: &str, app: &str| {
            let cutoffs = policy.cutoffs(Signal::Logs, &Tenant::new(tenant).expect("valid"), now);
            (now - cutoffs.of(&Labels::from_pairs([("app", app)]))) / day_ns
        };
        assert_eq!([kept("a", "debug"), kept("a", "audit"), kept("a", "x")], [1, 365, 7]);
        assert_eq!([kept("b", "debug"), kept("b", "audit"), kept("b", "x")], [30, 365, 30]);
        let cutoffs = policy.cutoffs(Signal::Logs, &Tenant::new("a").expect("valid"), now);
        assert_eq!((cutoffs.floor(), cutoffs.ceiling()), (now - 365 * day_ns, now - day_ns));
        assert_eq!(policy.cutoffs(Signal::Traces, &Tenant::single(), now).floor(), i64::MIN, "no rule: for ever");
        let days = |signal, tenant: Option<&Tenant>| policy.age_max(signal, tenant).map(|age| age.as_secs() / 86_400);
        assert_eq!(days(Signal::Logs, None), Some(365));
        assert_eq!(days(Signal::Logs, Some(&Tenant::single())), Some(365));
        assert_eq!(days(Signal::Metrics, None), None);
    }
}
