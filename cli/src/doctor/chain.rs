//! Tests that the KMS generates, wraps and unwraps data keys under a context, and refuses them under another.

use anyhow::Result;
use encx::ops::{TestOutcome, ValidationStep};
use encx::store::KeyRecord;

use crate::context;
use crate::doctor::finding::{Check, Code};
use crate::session::Session;

/// Tests under the context of a version. Stores nothing.
pub(crate) async fn check(
    session: &Session,
    active: Option<&KeyRecord>,
    keks_are_well: bool,
    found: &mut Check,
) -> Result<()> {
    let Some(active) = active else {
        found.not_checked("no active data key was found whose context could be tried");
        return Ok(());
    };
    let tried = active.verified_context()?;
    let crypto = session.crypto().await?;
    let validation = crypto.validate(&tried).await;
    crypto.shutdown().await;
    let subject = format!("encryption context {}", context::describe(&active.context));
    for test in &validation.tests {
        // The check of keys reports whether stored keys unwrap.
        let is_of_store = matches!(test.step, ValidationStep::KeyRetrieval | ValidationStep::CacheHit);
        match &test.outcome {
            TestOutcome::Failed { error } if test.step == ValidationStep::WrongContext => found.error(
                Code::WrongContextAccepted,
                subject.clone(),
                format!("the KMS does not bind data keys to their context: {error}"),
                "do not encrypt with this KMS: a row that is moved to another tenant would open there",
            ),
            TestOutcome::Failed { error } if !is_of_store && keks_are_well => found.error(
                Code::ValidationFailed,
                subject.clone(),
                format!("step {} failed: {error}", test.step.name()),
                "`encx validate` shows each step",
            ),
            TestOutcome::Failed { error } if !is_of_store => {
                found.not_checked(format!("step {}: {error}", test.step.name()));
            }
            TestOutcome::Skipped { reason } if !is_of_store && keks_are_well => {
                found.not_checked(format!("step {}: {reason}", test.step.name()));
            }
            _ => {}
        }
    }
    Ok(())
}
