//! What subscribers are told once a call has let go of its key: they are code of the service's own, which may call back or
//! take its time.

use encx_core::key::DataKeyId;
use encx_suite::OpenError;

/// Events that wait until no key, no snapshot and no lock is held: subscribers are told when this is dropped. Almost always
/// none.
#[derive(Default)]
pub(crate) struct Later(Option<Box<Told>>);

#[derive(Default)]
struct Told {
    /// A key that serves past its time, for the first time.
    stale: Option<DataKeyId>,
    refused: Vec<(DataKeyId, OpenError)>,
}

impl Later {
    #[cold]
    pub(crate) fn note_stale(&mut self, key: DataKeyId) {
        self.0.get_or_insert_default().stale = Some(key);
    }

    #[cold]
    pub(super) fn note_refused(&mut self, key: DataKeyId, error: OpenError) {
        self.0.get_or_insert_default().refused.push((key, error));
    }

    /// Tells nothing: a refusal was expected.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Later {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told.tell();
        }
    }
}

impl Told {
    #[cold]
    #[inline(never)]
    fn tell(&self) {
        if let Some(key) = self.stale {
            tell_stale(key);
        }
        for (key, error) in &self.refused {
            tracing::debug!(target: "encx::refused", %key, %error, "ciphertext refused");
        }
    }
}

/// Tells that a key serves past its time.
pub(super) fn tell_stale(key: DataKeyId) {
    tracing::warn!(
        target: "encx::cache", %key,
        "a key past its `ttl` serves, because the KMS does not answer"
    );
}
