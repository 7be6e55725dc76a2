//! What the conformance suite needs from a KMS.

use std::sync::Arc;

use async_trait::async_trait;

use encx_core::key::KekId;
use encx_core::kms::KeyManagementService;

/// Gives the conformance suite a KMS to test, and KEKs in it. Each case gets its own fixture.
#[async_trait]
pub trait KmsFixture: Send + Sync {
    /// Returns the KMS.
    fn kms(&self) -> Arc<dyn KeyManagementService>;

    /// Returns the permanent id of an enabled KEK.
    fn kek(&self) -> KekId;

    /// Returns the permanent id of another enabled KEK.
    fn other_kek(&self) -> KekId;

    /// Returns a well-formed id that names no KEK.
    fn unknown_kek(&self) -> KekId;

    /// Returns an alias of [`kek`](Self::kek); `None` if the KMS has no aliases.
    fn alias(&self) -> Option<KekId>;

    /// Disables [`kek`](Self::kek) or [`other_kek`](Self::other_kek), and returns once that has taken effect.
    async fn disable(&self, kek: &KekId);
}
