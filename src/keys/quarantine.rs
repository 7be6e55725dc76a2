//! How long a version stays suspended before it is destroyed.

use std::time::Duration;

use encx_core::store::OpenTransactions;

/// The default quarantine.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clocks of two databases may drift apart during a quarantine. A transaction that began up to
/// this long after the suspension is also waited for, which costs nothing in a longer quarantine.
const DRIFT: Duration = Duration::from_secs(60);

/// How long a version stays suspended before it is destroyed.
#[derive(Clone, Debug)]
pub(super) enum Quarantine {
    For(Duration),
    /// Skipped, for this reason.
    None(String),
}

impl Default for Quarantine {
    fn default() -> Self {
        Self::For(DAY)
    }
}

impl Quarantine {
    /// Tells whether one of these transactions may have begun before a suspension this long ago.
    ///
    /// Compares only ages, because rows and keys may be in databases with different clocks.
    pub(super) fn may_be_older(&self, open: &OpenTransactions, suspended_for: Duration) -> bool {
        let is_older = |age: Duration| age.saturating_add(DRIFT) >= suspended_for;
        let is_prepared_older = |age: Duration| match self {
            // When a prepared transaction began is unknown, but the quarantine is longer than any
            // transaction.
            Self::For(length) => is_older(age.saturating_add(*length)),
            Self::None(_) => true,
        };
        open.oldest.is_some_and(is_older) || open.oldest_prepared.is_some_and(is_prepared_older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_transaction_counts_as_older_unless_it_surely_is_not() {
        let (day, skipped) = (Quarantine::For(24 * HOUR), Quarantine::None("a test".to_owned()));
        let suspended_for = 25 * HOUR;
        let open = |age| OpenTransactions::new(Some(age), None);
        let prepared = |age| OpenTransactions::new(None, Some(age));
        for quarantine in [&day, &skipped] {
            let is_older = |open| quarantine.may_be_older(&open, suspended_for);
            assert!(!is_older(OpenTransactions::NONE));
            assert!(is_older(open(Duration::MAX)));
            assert!(is_older(open(26 * HOUR)));
            assert!(is_older(open(suspended_for)));
            // With clock drift.
            assert!(is_older(open(suspended_for - DRIFT)));
            assert!(!is_older(open(24 * HOUR)));
        }
        // Prepared 2 hours ago, so it may have begun 26 hours ago.
        assert!(day.may_be_older(&prepared(2 * HOUR), suspended_for));
        assert!(!day.may_be_older(&prepared(HOUR / 2), suspended_for));
        // How long before its preparation it began is unbounded.
        assert!(skipped.may_be_older(&prepared(Duration::ZERO), suspended_for));
    }
}
