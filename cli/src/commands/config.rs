//! `encx config`: shows and checks settings.

use anyhow::Result;

use crate::exit::Exit;
use crate::output::{columns, tell};
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Lists all settings: values without secrets, and what sets each
    Show,
    /// Connects to KMSs and key store, and checks that they belong together
    Check,
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
            // A service starts while its KMS is down; here every KEK has to answer.
            for kek in session.named_keks().await? {
                if let Some(kms) = session.kms().await?.get(&kek.kms) {
                    kms.describe_kek(&kek.kek).await?;
                }
            }
            session.crypto().await?.shutdown().await;
            tell("the settings are good: every KMS answers, and the key store has its tables");
        }
    }
    Ok(Exit::Done)
}
