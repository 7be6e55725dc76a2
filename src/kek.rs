//! Chooses the KEKs that wrap a data key, and those that may unwrap it.

mod breaker;
mod calls;
mod keks;
mod names;

use std::fmt;
use std::sync::Arc;

use encx_core::context::EncryptionContext;
use encx_core::key::{KekId, KmsName, NameError};

pub use breaker::CircuitState;
pub use calls::{KmsOperationStats, KmsOutcome, KmsStats, LatencyStats};
pub(crate) use keks::{Keks, KnownKms, Unreachable};

/// Names a KEK and its KMS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct KekRef {
    /// The name under which the KMS is registered.
    pub kms: KmsName,
    /// The KEK's name there: an id, an ARN or an alias.
    pub kek: KekId,
}

impl KekRef {
    /// Names a KEK of a KMS that was registered with `kms_named`.
    #[must_use]
    pub fn new(kms: KmsName, kek: KekId) -> Self {
        Self { kms, kek }
    }
}

/// A KEK of the KMS that `Crypto::builder` was given.
impl From<KekId> for KekRef {
    fn from(kek: KekId) -> Self {
        Self::new(KmsName::default(), kek)
    }
}

impl TryFrom<&str> for KekRef {
    type Error = NameError;

    fn try_from(kek: &str) -> Result<Self, NameError> {
        KekId::new(kek).map(Self::from)
    }
}

impl TryFrom<String> for KekRef {
    type Error = NameError;

    fn try_from(kek: String) -> Result<Self, NameError> {
        KekId::new(kek).map(Self::from)
    }
}

/// A KMS's name and the name of its KEK.
impl TryFrom<(&str, &str)> for KekRef {
    type Error = NameError;

    fn try_from((kms, kek): (&str, &str)) -> Result<Self, NameError> {
        Ok(Self::new(KmsName::new(kms)?, KekId::new(kek)?))
    }
}

/// The KEK rule's choice for one encryption context: the KEKs that wrap, and those that may unwrap.
///
/// A key store's row may choose among them but never add to them. Otherwise an attacker who can write a row could plant a
/// data key that they know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekChoice {
    wrap: Vec<KekRef>,
    unwrap: Vec<KekRef>,
}

impl KekChoice {
    /// Wraps new data keys under one KEK, and unwraps with it.
    pub fn new(wrap: impl Into<KekRef>) -> Self {
        Self {
            wrap: vec![wrap.into()],
            unwrap: Vec::new(),
        }
    }

    /// Wraps new data keys under another KEK too; any one that answers suffices to unwrap. At most 8 in all.
    #[must_use]
    pub fn also_wrap(mut self, kek: impl Into<KekRef>) -> Self {
        self.wrap.push(kek.into());
        self
    }

    /// Allows a KEK to unwrap, such as one that wrapped earlier.
    #[must_use]
    pub fn also_unwrap(mut self, kek: impl Into<KekRef>) -> Self {
        self.unwrap.push(kek.into());
        self
    }

    /// Wraps only with this KEK, and lets the others unwrap. `None` if it is not allowed.
    fn wrapped_with(self, kek: &KekRef) -> Option<Self> {
        self.allowed().find(|allowed| *allowed == kek)?;
        let others = self.allowed().filter(|allowed| *allowed != kek);
        Some(Self {
            unwrap: others.cloned().collect(),
            wrap: vec![kek.clone()],
        })
    }

    /// Lists the KEKs that wrap new data keys. The first one generates them.
    #[must_use]
    pub fn wraps(&self) -> &[KekRef] {
        &self.wrap
    }

    /// Lists the KEKs that may unwrap, in the order in which they are tried.
    pub fn allowed(&self) -> impl Iterator<Item = &KekRef> {
        self.wrap.iter().chain(&self.unwrap)
    }
}

type RuleFn = Arc<dyn Fn(&EncryptionContext) -> Option<KekChoice> + Send + Sync>;

/// The KEK rule from a builder: a closure, then pairs, then a default, then the KMS's own.
#[derive(Clone, Default)]
pub(crate) struct KekRule {
    pub(crate) by_closure: Option<RuleFn>,
    pub(crate) by_pair: Vec<(String, String, KekChoice)>,
    pub(crate) default: Option<KekChoice>,
    pub(crate) retired: Vec<KekRef>,
    /// Wraps instead of the rule's choice, where the rule allows it.
    pub(crate) target: Option<KekRef>,
}

impl KekRule {
    /// Lists the choices of pairs and the default. A closure's are not known in advance.
    pub(crate) fn choices(&self) -> impl Iterator<Item = &KekChoice> {
        let by_pair = self.by_pair.iter().map(|(_, _, choice)| choice);
        by_pair.chain(&self.default)
    }

    /// Lists the KEKs of pairs and the default that wrap new data keys.
    fn wrapping(&self) -> impl Iterator<Item = &KekRef> {
        self.choices().flat_map(KekChoice::wraps)
    }

    /// Lists the KEKs that the rule names, the default first. A closure's are not known in advance.
    pub(crate) fn named(&self) -> impl Iterator<Item = &KekRef> {
        let by_pair = self.by_pair.iter().map(|(_, _, choice)| choice);
        let choices = self.default.iter().chain(by_pair);
        choices.flat_map(KekChoice::allowed).chain(&self.retired)
    }

    fn choose(&self, context: &EncryptionContext) -> Option<KekChoice> {
        let by_closure = self.by_closure.as_ref().and_then(|rule| rule(context));
        let by_pair = || {
            let matching = self
                .by_pair
                .iter()
                .find(|(key, value, _)| context.get(key) == Some(value));
            matching.map(|(_, _, choice)| choice.clone())
        };
        let choice = by_closure.or_else(by_pair).or_else(|| self.default.clone())?;
        Some(
            self.retired
                .iter()
                .fold(choice, |choice, kek| choice.also_unwrap(kek.clone())),
        )
    }
}

impl fmt::Debug for KekRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KekRule")
            .field("by_closure", &self.by_closure.is_some())
            .field("by_pair", &self.by_pair)
            .field("default", &self.default)
            .field("retired", &self.retired)
            .field("target", &self.target)
            .finish()
    }
}
