//! `encx reencrypt`: encrypts rows anew that are not under the active version of their key.

use anyhow::Result;
use encx::Crypto;
use encx_config::DeclaredColumn;
use encx_tables::Rows;

use crate::columns::{ColumnArgs, name_of, why_not_walked};
use crate::exit::Exit;
use crate::output::{Output, tell};
use crate::progress::{Work, exit_of, follow_work};
use crate::rows;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    columns: ColumnArgs,
    /// At most so many rows a second
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    throttle: Option<u32>,
    /// Count what would be encrypted anew, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let declared = args.columns.of(&session.settings)?;
    // First: where the database is down, it says so sooner.
    session.store().await?;
    let rows = rows::connect(&session.settings).await?;
    let crypto = session.crypto().await?;
    let done = reencrypt(session.output, &args, &declared, &rows, &crypto).await;
    // Whatever became of it: `keys destroy` waits for processes that did not sign off.
    crypto.shutdown().await;
    done
}

async fn reencrypt(
    output: Output,
    args: &Args,
    declared: &[&DeclaredColumn],
    rows: &Rows,
    crypto: &Crypto,
) -> Result<Exit> {
    let mut exit = Exit::Done;
    for declared in declared {
        let name = name_of(declared);
        if let Some(why) = why_not_walked(declared) {
            tell(&format!(
                "{name} is left as it is, because {why}: have the service decrypt and encrypt its rows"
            ));
            exit = exit.worse(Exit::Finding);
            continue;
        }
        let work = Work {
            what: "re-encrypting rows".to_owned(),
            column: Some(name),
            total: Some(rows.estimated_rows(&declared.column).await?),
            tells: true,
        };
        let mut job = rows.reencrypt(crypto, [declared.column.clone()])?;
        if let Some(throttle) = args.throttle {
            job = job.throttle(throttle);
        }
        if args.dry_run {
            job = job.dry_run();
        }
        let report = follow_work(output, &work, job.start()).await?;
        exit = exit.worse(exit_of(&report));
        if exit == Exit::Interrupted {
            break;
        }
    }
    Ok(exit)
}
