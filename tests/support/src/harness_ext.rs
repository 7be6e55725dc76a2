//! What our own tests need of a `Harness` besides what a service's do.

use std::pin::pin;
use std::time::Duration;

use encx::{Crypto, CryptoBuilder};
use encx_testkit::Harness;

/// Starts processes on a [`Harness`] whose settings are their own.
pub trait HarnessExt {
    /// Begins a process on the harness's KMS, key store and clock, without the settings of its other processes.
    ///
    /// It asks neither the KMS nor the key store while it builds: tests count calls, and have edited rows read.
    fn builder(&self) -> CryptoBuilder;

    /// Lets time go by, 100 ms at a time, until a future is done.
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
