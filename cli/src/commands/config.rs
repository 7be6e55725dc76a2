//! `encx config`: shows and checks settings.

use anyhow::Result;

use crate::exit::Exit;
use crate::keks::state_name;
use crate::output::{columns, tell};
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List all settings and the source of each; secrets are hidden
    Show,
    /// Connect to the KMSs and the key store, and check that they belong together
    Check,
}

/// A server that answered.
#[derive(serde::Serialize)]
struct Check {
    what: &'static str,
    name: String,
    answer: &'static str,
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    match command {
        Command::Show => {
            let description = session.settings.describe();
            session.output.object(&description, || {
                let rows = description
                    .settings()
                    .iter()
                    .map(|setting| [setting.key.clone(), setting.value.clone(), setting.origin.clone()]);
                columns(Some(["SETTING", "VALUE", "SET BY"]), rows)
            })?;
        }
        Command::Check => {
            let mut checks = Vec::new();
            for kek in session.named_keks().await? {
                if let Some(kms) = session.kms().await?.get(&kek.kms) {
                    let described = kms.describe_kek(&kek.kek).await?;
                    checks.push(Check {
                        what: "KEK",
                        name: format!("{}:{}", kek.kms, described.kek),
                        answer: state_name(described.state),
                    });
                }
            }
            session.crypto().await?.shutdown().await;
            checks.push(Check {
                what: "key store",
                name: session
                    .settings
                    .key_store_url()
                    .map_or_else(String::new, |url| url.to_string()),
                answer: "has its tables",
            });
            session
                .output
                .list(["WHAT", "NAME", "ANSWER"], &checks, |check| {
                    [check.what, &check.name, check.answer].map(str::to_owned)
                })?;
            tell("the settings are good: every KMS answers, and the key store has its tables");
        }
    }
    Ok(Exit::Done)
}
