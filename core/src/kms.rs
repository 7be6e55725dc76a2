//! The contract of a key management service: it wraps and unwraps data keys, and reports typed failures.

mod requests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::causes::debug_as_text;
use crate::context::{EncryptionContext, frame_pairs};
use crate::key::{DataKey, DataKeyId, KekId, KeyUsage, WrappedKey};
use crate::timestamp::Timestamp;

pub use self::requests::{RequestCounter, report_requests, report_server_time};

/// Wraps and unwraps data keys under KEKs that never leave it.
///
/// This is the minimum that a provider implements. encx adds caching, choice of KEKs, checks before unwrapping and
/// limits on concurrency, the same for all providers. Creating KEKs and aliases are a provider's own methods. A
/// provider mounts the conformance suite with `encx_testkit::kms_conformance!`.
///
/// Every provider guarantees:
///
/// - Every pair of the [`KmsContext`] is authenticated: a key unwraps only under exactly the pairs it was wrapped
///   under. Anything else is [`KmsErrorKind::Integrity`].
/// - `WrappedKey::kek` of a returned wrap is the KEK's permanent name, never an alias.
/// - The provider retries. Its callers do not.
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future. Other calls are unaffected, and a key that was being
/// generated is lost without a trace in any store.
#[async_trait]
pub trait KeyManagementService: fmt::Debug + Send + Sync + 'static {
    /// Names the kind of provider, such as `aws-kms` or `local`.
    fn provider(&self) -> &'static str;

    /// Returns the KEK to use if the service does not name one, such as that of `AWS_KMS_KEY_ID`.
    fn default_kek(&self) -> Option<&KekId>;

    /// Generates a data key and wraps it under `kek`, which may be an alias.
    ///
    /// # Errors
    ///
    /// [`KmsError`] of any kind but [`KmsErrorKind::Integrity`].
    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError>;

    /// Wraps an existing data key under `kek`, which may be an alias.
    ///
    /// # Errors
    ///
    /// [`KmsError`] of any kind but [`KmsErrorKind::Integrity`].
    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError>;

    /// Unwraps a data key with the KEK that the wrap names, and no other.
    ///
    /// # Errors
    ///
    /// [`KmsErrorKind::Integrity`] if the wrap was changed, the context is not the one it was wrapped under, or
    /// another KEK made it; [`KmsErrorKind::NotFound`] if the KEK does not exist; [`KmsErrorKind::KeyState`] if it is
    /// disabled; and any other kind.
    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError>;

    /// Moves a wrap to the KEK `to`, which may be an alias, under the same context.
    ///
    /// The data key stays the same. If the service can rewrap by itself, the key never leaves it.
    ///
    /// # Errors
    ///
    /// As [`unwrap_key`](Self::unwrap_key) for the wrap, and as [`wrap_key`](Self::wrap_key) for `to`.
    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError>;

    /// Describes a KEK: its permanent name, its state, its material.
    ///
    /// # Errors
    ///
    /// [`KmsErrorKind::NotFound`] if it does not exist; and any other kind but [`KmsErrorKind::Integrity`].
    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: KeyManagementService + ?Sized> KeyManagementService for Arc<T> {
    fn provider(&self) -> &'static str {
        (**self).provider()
    }

    fn default_kek(&self) -> Option<&KekId> {
        (**self).default_kek()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        (**self).generate_data_key(kek, context).await
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        (**self).wrap_key(kek, key, context).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        (**self).unwrap_key(wrapped, context).await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        (**self).rewrap_key(wrapped, context, to).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        (**self).describe_kek(kek).await
    }
}

/// The pairs that a KMS authenticates with a wrap: the caller's, and three that encx adds.
///
/// `encx:key` is the data key's id, `encx:usage` its usage and `encx:v` is `1`. encx always builds it from the caller's
/// request, never from a row.
#[derive(Clone, PartialEq, Eq)]
pub struct KmsContext {
    pairs: Vec<(String, String)>,
}

impl KmsContext {
    /// Builds the context of one data key.
    #[must_use]
    pub fn new(context: &EncryptionContext, usage: KeyUsage, id: DataKeyId) -> Self {
        let own = [
            ("encx:key".to_owned(), id.to_string()),
            ("encx:usage".to_owned(), usage.name().to_owned()),
            ("encx:v".to_owned(), "1".to_owned()),
        ];
        let theirs = context
            .pairs()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut pairs: Vec<_> = theirs.chain(own).collect();
        pairs.sort();
        Self { pairs }
    }

    /// Lists the pairs, sorted by the UTF-8 bytes of their keys. There are 4 to 11.
    #[must_use]
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Frames all pairs as [`EncryptionContext::canonical`] does, for providers that authenticate bytes.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        frame_pairs(self.pairs())
    }
}

impl fmt::Debug for KmsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

/// A new data key, unwrapped and wrapped.
#[derive(Debug)]
#[non_exhaustive]
pub struct GeneratedDataKey {
    /// The key, for use.
    pub key: DataKey,
    /// The wrapped key, for a store.
    pub wrapped: WrappedKey,
}

impl GeneratedDataKey {
    /// Joins both forms of a key.
    #[must_use]
    pub fn new(key: DataKey, wrapped: WrappedKey) -> Self {
        Self { key, wrapped }
    }
}

/// A KMS's description of a KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekDescription {
    /// The KEK's permanent name. Wraps carry it.
    pub kek: KekId,
    /// Whether the KEK can be used.
    pub state: KekState,
    /// The material that wraps now, if the KMS reports it.
    pub current_material: Option<String>,
    /// Whether replicas in other regions share its material, if the KMS has regions.
    pub multi_region: Option<bool>,
    /// Whether it rotates its material automatically, if the KMS reports it.
    pub rotation: Option<bool>,
    /// The period of automatic rotation in days, if it is on and the KMS reports it.
    pub rotation_days: Option<u32>,
    /// When it last rotated, by the KMS's clock; `None` if it never did, or the KMS does not report it.
    pub last_rotation: Option<Timestamp>,
    /// When it will next rotate, by the KMS's clock, if that is scheduled and the KMS reports it.
    pub next_rotation: Option<Timestamp>,
    /// When it will be deleted, by the KMS's clock, if that is scheduled and the KMS reports it.
    pub deletion: Option<Timestamp>,
}

impl KekDescription {
    /// Describes a KEK by its name and state alone.
    #[must_use]
    pub fn new(kek: KekId, state: KekState) -> Self {
        Self {
            kek,
            state,
            current_material: None,
            multi_region: None,
            rotation: None,
            rotation_days: None,
            last_rotation: None,
            next_rotation: None,
            deletion: None,
        }
    }
}

/// Whether a KEK can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KekState {
    /// It is switched off, and can be switched on again.
    Disabled,
    /// It wraps and unwraps.
    Enabled,
    /// It is scheduled for deletion, and until then does nothing.
    PendingDeletion,
    /// It exists but cannot be used for another reason.
    Unavailable,
}

/// A request to a KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KmsOperation {
    /// [`KeyManagementService::describe_kek`].
    DescribeKek,
    /// [`KeyManagementService::generate_data_key`].
    GenerateDataKey,
    /// [`KeyManagementService::rewrap_key`].
    RewrapKey,
    /// [`KeyManagementService::unwrap_key`].
    UnwrapKey,
    /// [`KeyManagementService::wrap_key`].
    WrapKey,
}

impl fmt::Display for KmsOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DescribeKek => "describe",
            Self::GenerateDataKey => "generate a data key under",
            Self::RewrapKey => "rewrap a data key to",
            Self::UnwrapKey => "unwrap a data key with",
            Self::WrapKey => "wrap a data key under",
        })
    }
}

/// Why a KMS failed, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KmsErrorKind {
    /// The caller has no permission for this operation on this KEK.
    AccessDenied,
    /// The request cannot succeed as configured: a wrong kind of key, a wrong region, an invalid name.
    Configuration,
    /// The wrap was changed, the context is not the one it was wrapped under, or another KEK made it.
    Integrity,
    /// The KEK is disabled, pending deletion or otherwise in a state that forbids this.
    KeyState,
    /// A quota is exhausted. Waiting does not help.
    LimitExceeded,
    /// The KEK does not exist.
    NotFound,
    /// There were too many requests. Retryable.
    Throttled,
    /// The KMS did not answer, answered too late, or failed itself. Retryable.
    Unavailable,
    /// The provider does not support this.
    Unsupported,
}

impl fmt::Display for KmsErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessDenied => "access is denied",
            Self::Configuration => "the request or the configuration is wrong",
            Self::Integrity => {
                "the wrapped key is damaged, belongs to another encryption context, or was made by another KEK"
            }
            Self::KeyState => "the KEK's state forbids it",
            Self::LimitExceeded => "a quota is used up",
            Self::NotFound => "the KEK does not exist",
            Self::Throttled => "there were too many requests",
            Self::Unavailable => "the KMS is unavailable",
            Self::Unsupported => "this provider does not support it",
        })
    }
}

/// A failure of a KMS: which operation on which KEK, why, and what to do.
///
/// Cheap to clone. The provider's own error is its `source()`.
#[derive(Clone)]
pub struct KmsError(Arc<KmsErrorInner>);

#[derive(Clone)]
struct KmsErrorInner {
    kind: KmsErrorKind,
    provider: &'static str,
    operation: KmsOperation,
    kek: KekId,
    advice: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl KmsError {
    /// Describes a failure.
    #[must_use]
    pub fn new(kind: KmsErrorKind, provider: &'static str, operation: KmsOperation, kek: &KekId) -> Self {
        let kek = kek.clone();
        Self(Arc::new(KmsErrorInner {
            kind,
            provider,
            operation,
            kek,
            advice: None,
            source: None,
        }))
    }

    /// Adds advice, as the end of a sentence. It must not contain a secret.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).advice = Some(advice.into());
        self
    }

    /// Adds the provider's own error.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// Returns why it failed.
    #[must_use]
    pub fn kind(&self) -> KmsErrorKind {
        self.0.kind
    }

    /// Returns the operation that failed.
    #[must_use]
    pub fn operation(&self) -> KmsOperation {
        self.0.operation
    }

    /// Returns the KEK of the operation.
    #[must_use]
    pub fn kek(&self) -> &KekId {
        &self.0.kek
    }

    /// Tells whether the same request may succeed later unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), KmsErrorKind::Throttled | KmsErrorKind::Unavailable)
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KmsErrorInner {
            kind,
            provider,
            operation,
            kek,
            advice,
            ..
        } = &*self.0;
        write!(f, "{provider} could not {operation} KEK `{kek}`: {kind}")?;
        advice.iter().try_for_each(|advice| write!(f, "; {advice}"))
    }
}

debug_as_text!(KmsError);

impl std::error::Error for KmsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_carries_the_key_and_its_usage() {
        let id = DataKeyId::generate(1, None).unwrap();
        let user = EncryptionContext::builder()
            .pair("a", 1)
            .pair("z", 2)
            .build()
            .unwrap();
        let context = KmsContext::new(&user, KeyUsage::Index, id);
        let text = id.to_string();
        assert_eq!(
            context.pairs().collect::<Vec<_>>(),
            [
                ("a", "1"),
                ("encx:key", text.as_str()),
                ("encx:usage", "index"),
                ("encx:v", "1"),
                ("z", "2")
            ]
        );
        assert_eq!(context.canonical()[..7], *b"\0\x05\0\x01a\0\x01");
    }

    #[test]
    fn an_error_says_what_was_asked_of_whom_and_keeps_its_source() {
        let kek = KekId::new("alias/app").unwrap();
        let error = KmsError::new(KmsErrorKind::NotFound, "local", KmsOperation::UnwrapKey, &kek)
            .with_advice("create it")
            .with_source(std::io::Error::other("inner"));
        assert_eq!(
            error.to_string(),
            "local could not unwrap a data key with KEK `alias/app`: the KEK does not exist; create it"
        );
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "inner");
        assert!(!error.is_retryable());
        let throttled = KmsError::new(KmsErrorKind::Throttled, "local", KmsOperation::WrapKey, &kek);
        assert!(throttled.is_retryable());
    }
}
