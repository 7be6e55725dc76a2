//! The states of a data key, and the transitions between them.

use std::fmt;

/// The state of a data key in its life cycle ([NIST SP 800-57 part 1], section 7).
///
/// ```text
///                  promote              promote the next
///   pre-active ───────────────▶ active ───────────────▶ deactivated
///       │  ▲                    │  │ ▲                     │  ▲ │
///       │  │ resume             │  │ │ resume              │  │ │ resume returns
///       ▼  │                    │  ▼ │                     ▼  │ │ from suspended
///      suspended ◀──────────────┘ suspended              suspended
///       │        \ compromise      │                        │
///       │         ▶ compromised ◀──┴────────────────────────┘ (also from active and deactivated)
///       ▼               │
///   destroyed ◀─────────┘ (also from pre-active and deactivated; nothing leaves destroyed)
/// ```
///
/// [NIST SP 800-57 part 1]: https://doi.org/10.6028/NIST.SP.800-57pt1r5
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Encrypts and decrypts. A scope has at most one active version.
    Active,
    /// Does not encrypt, and decrypts only on request: an attacker with the key can forge ciphertexts.
    Compromised,
    /// Decrypts only.
    Deactivated,
    /// Its wraps were deleted. What it encrypted can no longer be decrypted.
    Destroyed,
    /// Decrypts only, because another process may have learned earlier that the key is active.
    PreActive,
    /// Does nothing until it returns to the state from which it was suspended.
    Suspended,
}

impl KeyState {
    /// All states, in the order of a key's life cycle.
    pub const ALL: [Self; 6] = [
        Self::PreActive,
        Self::Active,
        Self::Deactivated,
        Self::Suspended,
        Self::Compromised,
        Self::Destroyed,
    ];

    /// Returns the state's name, as stores keep it: `pre-active`, `active`, `deactivated`, `suspended`,
    /// `compromised` or `destroyed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Compromised => "compromised",
            Self::Deactivated => "deactivated",
            Self::Destroyed => "destroyed",
            Self::PreActive => "pre-active",
            Self::Suspended => "suspended",
        }
    }

    /// Returns the state with this name; `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Tells whether a key in this state encrypts.
    #[must_use]
    pub const fn encrypts(self) -> bool {
        matches!(self, Self::Active)
    }

    /// Tells whether a key in this state decrypts without a special request.
    #[must_use]
    pub const fn decrypts(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated | Self::PreActive)
    }

    /// Tells whether a key may change from this state to `to`.
    ///
    /// `suspended_from` is the state from which a suspended key was suspended. Besides compromised and destroyed, it
    /// is the only state that the key may change to. The store itself deactivates the active key when the next
    /// version is promoted.
    #[must_use]
    pub fn may_become(self, to: Self, suspended_from: Option<Self>) -> bool {
        use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
        match (self, to) {
            (PreActive, Active | Suspended | Destroyed)
            | (Active, Suspended | Compromised)
            | (Deactivated, Suspended | Compromised | Destroyed)
            | (Suspended, Compromised | Destroyed)
            | (Compromised, Destroyed) => true,
            (Suspended, to) => suspended_from == Some(to),
            _ => false,
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares every pair of states with the design's table, written out again here.
    #[test]
    fn transitions_are_those_of_the_table() {
        use KeyState::*;
        let legal = |from, suspended_from: Option<KeyState>| -> Vec<KeyState> {
            match from {
                PreActive => vec![Active, Suspended, Destroyed],
                Active => vec![Suspended, Compromised],
                Deactivated => vec![Suspended, Compromised, Destroyed],
                Suspended => suspended_from
                    .into_iter()
                    .chain([Compromised, Destroyed])
                    .collect(),
                Compromised => vec![Destroyed],
                Destroyed => vec![],
            }
        };
        for from in KeyState::ALL {
            for suspended_from in [None, Some(PreActive), Some(Active), Some(Deactivated)] {
                for to in KeyState::ALL {
                    let expected = legal(from, suspended_from).contains(&to);
                    assert_eq!(from.may_become(to, suspended_from), expected, "{from} to {to}");
                }
            }
        }
    }
}
