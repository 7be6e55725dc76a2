//! How long a version encrypts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::KeyUsage;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When versions of a context's key are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotationPeriod {
    /// After the active version has been active this long.
    Every(Duration),
    /// Never by [`Maintenance`](crate::keys::Maintenance).
    Never,
}

type RuleFn = Arc<dyn Fn(&EncryptionContext, KeyUsage) -> Option<RotationPeriod> + Send + Sync>;

/// Rules in order: a closure of context and usage, pairs, a default.
#[derive(Clone)]
pub(super) struct Rules {
    by_closure: Option<(Duration, RuleFn)>,
    pub(super) by_pair: Vec<(String, String, RotationPeriod)>,
    pub(super) default: RotationPeriod,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            by_closure: None,
            by_pair: Vec::new(),
            default: RotationPeriod::Every(90 * DAY),
        }
    }
}

impl Rules {
    pub(super) fn set_closure(
        &mut self,
        shortest: Duration,
        rule: impl Fn(&EncryptionContext, KeyUsage) -> Option<RotationPeriod> + Send + Sync + 'static,
    ) {
        self.by_closure = Some((shortest, Arc::new(rule)));
    }

    pub(super) fn period(&self, context: &EncryptionContext, usage: KeyUsage) -> RotationPeriod {
        let by_closure = self
            .by_closure
            .as_ref()
            .and_then(|(_, rule)| rule(context, usage));
        let by_pair = || {
            let mut pairs = self.by_pair.iter();
            let matching = pairs.find(|(key, value, _)| context.get(key) == Some(value));
            matching.map(|(_, _, period)| *period)
        };
        by_closure.or_else(by_pair).unwrap_or(self.default)
    }

    /// Returns the shortest period of all rules; `None` if nothing is rotated.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let by_pair = self.by_pair.iter().map(|(_, _, period)| period);
        let periods = by_pair.chain([&self.default]).filter_map(|period| match period {
            RotationPeriod::Every(period) => Some(*period),
            RotationPeriod::Never => None,
        });
        let by_closure = self.by_closure.as_ref().map(|(shortest, _)| *shortest);
        periods.chain(by_closure).min()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("by_closure", &self.by_closure.is_some())
            .field("by_pair", &self.by_pair)
            .field("default", &self.default)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides_and_the_shortest_bounds_the_scan() {
        let context = |pairs: &[(&str, &str)]| EncryptionContext::from_pairs(pairs.iter().copied()).unwrap();
        let mut rules = Rules::default();
        assert_eq!(rules.shortest(), Some(90 * DAY));
        let of = |rules: &Rules, pairs: &[(&str, &str)]| rules.period(&context(pairs), KeyUsage::Data);
        let (every, pair) = (RotationPeriod::Every, |value: &str| {
            ("purpose".to_owned(), value.to_owned())
        });
        let (key, value) = pair("logs");
        rules.by_pair.push((key, value, RotationPeriod::Never));
        let (key, value) = pair("logs");
        rules.by_pair.push((key, value, every(DAY)));
        assert_eq!(of(&rules, &[("purpose", "logs")]), RotationPeriod::Never);
        assert_eq!(of(&rules, &[("purpose", "pii")]), every(90 * DAY));
        assert_eq!(rules.shortest(), Some(DAY));
        rules.set_closure(DAY / 2, |context, usage| {
            let is_own = context.get("tenantId") == Some("t") && usage == KeyUsage::Data;
            is_own.then_some(RotationPeriod::Every(DAY / 2))
        });
        assert_eq!(
            of(&rules, &[("tenantId", "t"), ("purpose", "logs")]),
            every(DAY / 2)
        );
        assert_eq!(of(&rules, &[("purpose", "logs")]), RotationPeriod::Never);
        assert_eq!(rules.shortest(), Some(DAY / 2));
        let never = Rules {
            default: RotationPeriod::Never,
            ..Rules::default()
        };
        assert_eq!(never.shortest(), None);
    }
}
