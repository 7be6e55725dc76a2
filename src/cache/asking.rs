//! Calls to the key store whose outcomes are remembered.

use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{KeyUsage, Scope};
use encx_core::store::{KeyRecord, StoreError};

use crate::cache::Environment;
use crate::calls::CallFailure;
use crate::error::Error;

impl Environment {
    /// Calls the key store, and remembers the outcome.
    ///
    /// A dropped call counts as a failure if it lasted for a good part of `load_timeout`: its flight was abandoned.
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let asked = Asked {
            env: self,
            began: self.clock.elapsed(),
            has_ended: false,
        };
        let answer = call.await;
        asked.ended(answer.as_ref().err());
        answer
    }
}

impl Environment {
    /// Calls the key store with the time-out of a load, so that a store that hangs stops nothing permanently.
    pub(crate) async fn ask_in_time<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        let after = self.limits.load_timeout;
        tokio::select! {
            answer = self.ask(call) => Ok(answer?),
            () = self.clock.sleep(after) => Err(Error::TimedOut { after }),
        }
    }

    /// Reads the versions of a context's key, and caches nothing.
    pub(crate) async fn read_versions(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
    ) -> Result<Vec<KeyRecord>, Error> {
        let scope = [Scope::of(usage, context)];
        let versions = self.ask_in_time(self.store.load(&scope)).await?;
        for version in &versions {
            version.check_belongs(context, usage)?;
        }
        Ok(versions)
    }
}

/// A call in flight.
struct Asked<'a> {
    env: &'a Environment,
    began: Duration,
    has_ended: bool,
}

impl Asked<'_> {
    fn ended(mut self, error: Option<&StoreError>) {
        self.has_ended = true;
        self.env
            .store_calls
            .note(&*self.env.clock, error.and_then(failure));
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let lasted = || self.env.clock.elapsed().saturating_sub(self.began);
        if !self.has_ended && lasted() >= self.env.limits.load_timeout / 3 {
            let failure = CallFailure {
                name: "timed_out",
                is_silence: true,
                is_of_one_kek: false,
            };
            self.env.store_calls.note(&*self.env.clock, Some(failure));
        }
    }
}

/// Returns why the key store could not serve. `None` for an answer, such as that another process was faster.
fn failure(error: &StoreError) -> Option<CallFailure> {
    let (name, is_silence) = match error {
        StoreError::Database { .. } => ("database", false),
        StoreError::NotMigrated { .. } => ("not_migrated", false),
        StoreError::Unavailable { .. } => ("unavailable", true),
        _ => return None,
    };
    Some(CallFailure {
        name,
        is_silence,
        is_of_one_kek: false,
    })
}
