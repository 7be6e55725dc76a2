//! `encx validate`: tests the whole chain under one encryption context.

use std::time::Duration;

use anyhow::Result;
use encx::ops::{TestOutcome, Validation};

use crate::context::ContextArgs;
use crate::exit::Exit;
use crate::output::{columns, tell};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    context: ContextArgs,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let context = args.context.context()?;
    let crypto = session.crypto().await?;
    let validation = crypto.validate(&context).await;
    crypto.shutdown().await;
    session.output.object(&validation, || table(&validation))?;
    for test in &validation.tests {
        match &test.outcome {
            TestOutcome::Failed { error } => tell(&format!("{}: {error}", test.step.name())),
            TestOutcome::Skipped { reason } => {
                tell(&format!("{}: skipped, because {reason}", test.step.name()));
            }
            _ => {}
        }
    }
    Ok(match validation.passed() {
        true => Exit::Done,
        false => Exit::Unreachable,
    })
}

fn table(validation: &Validation) -> String {
    let rows = validation.tests.iter().map(|test| {
        let kek = test.kek.as_ref().map(|kek| format!("{}:{}", kek.kms, kek.kek));
        let (result, took) = match &test.outcome {
            TestOutcome::Passed => ("pass", millis(test.latency)),
            TestOutcome::Skipped { .. } => ("skipped", "-".to_owned()),
            _ => ("FAIL", millis(test.latency)),
        };
        [
            test.step.name().to_owned(),
            kek.unwrap_or_else(|| "-".to_owned()),
            result.to_owned(),
            took,
        ]
    });
    columns(Some(["STEP", "KEK", "RESULT", "MS"]), rows)
}

fn millis(latency: Duration) -> String {
    format!("{:.3}", latency.as_secs_f64() * 1e3)
}
