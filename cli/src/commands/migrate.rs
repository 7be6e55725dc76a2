//! `encx migrate`: the key store's tables.

use anyhow::Result;

use crate::exit::Exit;
use crate::output::tell;
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the migrations and which ones ran; exit 3 if any is pending
    Status,
    /// Run the pending migrations
    Run,
    /// Write the SQL of the pending migrations, for a separate role to run
    Sql,
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    let store = session.open_store().await?;
    let steps = store.migrations().await?;
    let is_pending = steps.iter().any(|step| !step.is_applied);
    match command {
        Command::Status => {
            #[derive(serde::Serialize)]
            struct Step<'s> {
                version: i64,
                name: &'s str,
                is_applied: bool,
            }
            let steps: Vec<_> = steps
                .iter()
                .map(|step| Step {
                    version: step.version,
                    name: &step.name,
                    is_applied: step.is_applied,
                })
                .collect();
            session.output.list(["STEP", "NAME", "RAN"], &steps, |step| {
                let ran = if step.is_applied { "yes" } else { "no" };
                [step.version.to_string(), step.name.to_owned(), ran.to_owned()]
            })?;
            if is_pending {
                tell("the key store's tables are not up to date: run `encx migrate run`");
                return Ok(Exit::Finding);
            }
        }
        Command::Run => {
            store.migrate().await?;
            match is_pending {
                true => tell("the key store's tables are up to date now"),
                false => tell("the key store's tables were up to date already"),
            }
        }
        Command::Sql => {
            for step in steps.iter().filter(|step| !step.is_applied) {
                session
                    .output
                    .text(&format!("-- {} {}\n{}\n", step.version, step.name, step.sql))?;
            }
        }
    }
    Ok(Exit::Done)
}
