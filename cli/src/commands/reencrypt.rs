//! `encx reencrypt`: re-encrypts rows that are not under the active version of their key.

use anyhow::Result;
use encx::Crypto;
use encx_config::DeclaredColumn;
use encx_tables::Rows;

use crate::columns::{WalkArgs, name_of, why_not_walked};
use crate::exit::Exit;
use crate::output::{Output, tell};
use crate::progress::{Work, exit_of, follow_work};
use crate::session::Session;

pub(crate) async fn run(session: &Session, args: WalkArgs) -> Result<Exit> {
    let declared = args.columns.of(&session.settings)?;
    session
        .with_rows(async |rows, crypto| reencrypt(session.output, &args, &declared, rows, crypto).await)
        .await
}

async fn reencrypt(
    output: Output,
    args: &WalkArgs,
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
        let job = args.paced(rows.reencrypt(crypto, [declared.column.clone()])?);
        let report = follow_work(output, &work, job.start()).await?;
        exit = exit.worse(exit_of(&report));
        if exit == Exit::Interrupted {
            break;
        }
    }
    Ok(exit)
}
