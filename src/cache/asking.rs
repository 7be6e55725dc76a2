//! Calls to the key store, of which is remembered how they ended.

use std::time::Duration;

use encx_core::store::StoreError;

use crate::cache::Environment;
use crate::calls::CallFailure;

impl Environment {
    /// Asks the key store, and remembers how that ended.
    ///
    /// A call that is dropped counts as a failure if it had lasted for a good part of `load_timeout`: its flight was given up.
    pub(super) async fn ask<T>(
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

/// A call that is under way.
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
            };
            self.env.store_calls.note(&*self.env.clock, Some(failure));
        }
    }
}

/// Says why the key store could not serve. `None` for an answer, such as that another process was faster.
fn failure(error: &StoreError) -> Option<CallFailure> {
    let (name, is_silence) = match error {
        StoreError::Database { .. } => ("database", false),
        StoreError::NotMigrated { .. } => ("not_migrated", false),
        StoreError::Unavailable { .. } => ("unavailable", true),
        _ => return None,
    };
    Some(CallFailure { name, is_silence })
}
