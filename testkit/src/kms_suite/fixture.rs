//! What the conformance suite needs of a KMS.

use std::sync::Arc;

use async_trait::async_trait;

use encx_core::key::KekId;
use encx_core::kms::KeyManagementService;

/// Gives the conformance suite a KMS to test, and the KEKs in it. Each case gets a fixture of its own.
#[async_trait]
pub trait KmsFixture: Send + Sync {
    /// Returns the KMS.
    fn kms(&self) -> Arc<dyn KeyManagementService>;

    /// Returns the lasting id of an enabled KEK.
    fn kek(&self) -> KekId;

    /// Returns the lasting id of another enabled KEK.
    fn other_kek(&self) -> KekId;

    /// Returns an id that is well formed and names no KEK.
    fn unknown_kek(&self) -> KekId;

    /// Returns an alias of [`kek`](Self::kek); `None` where the KMS has no aliases.
    fn alias(&self) -> Option<KekId>;

    /// Disables [`kek`](Self::kek) or [`other_kek`](Self::other_kek), and returns when that is in effect.
    async fn disable(&self, kek: &KekId);
}
