//! `encx shred plan`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use encx::Error;

use crate::context::{ContextArgs, describe};
use crate::exit::Exit;
use crate::output::{columns, tell};
use crate::receipts::{exact_moment, write_whole};
use crate::row_counts::{RowCounts, describe_rows};
use crate::session::Session;

use super::planned::{Plan, PlannedContext};
use super::state::{contexts_with, versions_of};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    context: ContextArgs,
    /// Include contexts that contain these pairs among others, such as all purposes of a tenant
    #[arg(long)]
    every: bool,
    /// Write the plan to this file, for `encx shred run`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let asked = args.context.context()?;
    let store = session.store().await?;
    let contexts = match args.every {
        true => contexts_with(&*store, &asked.to_map()).await?,
        false => vec![asked.clone()],
    };
    let counts = RowCounts::take(session).await?;
    let mut planned = Vec::with_capacity(contexts.len());
    for context in &contexts {
        let versions = versions_of(&*store, context).await?;
        if versions.is_empty() {
            return Err(Error::NoKeys.into());
        }
        let ids = versions.iter().map(|version| version.id);
        let rows = counts.as_ref().map(|counts| counts.under(ids));
        planned.push(PlannedContext::new(context, &versions, rows));
    }
    if planned.is_empty() {
        return Err(Error::NoKeys.into());
    }
    let made_at = exact_moment(session.manager(None).await?.time_of_store().await?);
    let plan = Plan::new(made_at, args.every.then(|| asked.to_map()), planned)?;
    if let Some(out) = &args.out {
        let text = serde_json::to_vec_pretty(&plan)?;
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
        write_whole(folder.unwrap_or(".".as_ref()), out, &text)
            .with_context(|| format!("the plan could not be written to {}", out.display()))?;
    }
    session.output.object(&plan, || table(&plan))?;
    if let Some(out) = &args.out {
        tell(&format!(
            "read the plan, then: encx shred run {} --receipts DIR --because REASON",
            out.display()
        ));
    }
    Ok(Exit::Done)
}

fn table(plan: &Plan) -> String {
    let header = ["CONTEXT", "USAGE", "VERSION", "STATE", "ID"];
    let versions = plan.contexts.iter().flat_map(|of| {
        of.versions.iter().map(|version| {
            [
                describe(&of.context),
                version.usage.clone(),
                version.version.to_string(),
                version.state.clone(),
                version.id.clone(),
            ]
        })
    });
    let rows = plan
        .contexts
        .iter()
        .map(|of| [describe(&of.context), describe_rows(of.rows.as_deref())]);
    let survives: Vec<_> = plan.survives.iter().map(|what| format!("- {what}")).collect();
    format!(
        "{}\n\n{}\n\nWhat survives:\n{}\n\ndigest {}",
        columns(Some(header), versions),
        columns(Some(["CONTEXT", "ROWS"]), rows),
        crate::output::printable(&survives.join("\n")),
        plan.digest
    )
}
