//! Additions to `Harness` for encx's own tests.

use std::pin::pin;
use std::time::Duration;

use encx::{Crypto, CryptoBuilder};
use encx_testkit::Harness;

/// Starts processes on a [`Harness`] with their own settings.
pub trait HarnessExt {
    /// Begins a process on the harness's KMS, key store and clock, without the settings of its other processes.
    ///
    /// Its `build` calls neither the KMS nor the key store: tests count calls, and let edited rows be read.
    fn builder(&self) -> CryptoBuilder;

    /// Advances time, 100 ms at a time, until a future is done.
    fn in_time<F: Future>(&self, future: F) -> impl Future<Output = F::Output>;
}

impl HarnessExt for Harness {
    fn builder(&self) -> CryptoBuilder {
        Crypto::builder(self.kms().clone(), self.store().clone())
            .clock(self.clock().clone())
            .connect_lazily()
    }

    async fn in_time<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return done,
                () = self.clock().advance(Duration::from_millis(100)) => {}
            }
        }
    }
}
