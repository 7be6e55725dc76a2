//! Compares the declared columns with the database: missing ones, and undeclared ones with ciphertexts.

use anyhow::Result;
use encx::store::KeyStore;
use encx_tables::RowsError;

use crate::doctor::finding::{Check, Code};
use crate::rows;
use crate::session::Session;

pub(crate) async fn check(session: &Session, found: &mut Check) -> Result<()> {
    let settings = &session.settings;
    let url = settings.key_store_url();
    if url.is_some_and(|url| url.expose().contains("statement-cache-capacity=0")) {
        found.not_checked("tables are not looked at through a transaction pooler: run it where the server itself is reached");
        return Ok(());
    }
    let rows = rows::connect(settings).await?;
    let declared = settings.columns();
    for of in declared {
        let (column, origin) = (&of.column, &of.origin);
        let subject = format!("{}.{}", column.sql_table, column.sql_column);
        match rows.check_column(column).await {
            Ok(()) => {}
            Err(error @ (RowsError::NoSuchColumn { .. } | RowsError::NoSuchTable { .. })) => found.error(
                Code::ColumnGone,
                subject,
                format!("it is declared by {origin}, and {error}: no rotation and no census of it can run"),
                "correct its [[column]], or remove it if its rows were deleted",
            ),
            Err(error @ (RowsError::ColumnType { .. } | RowsError::Description { .. })) => found.error(
                Code::ColumnType,
                subject,
                format!("it is declared by {origin} as it is not: {error}"),
                "correct its [[column]]: `encx_config::columns_toml` writes those of `#[derive(Encrypt)]`",
            ),
            Err(error) => found.not_checked(format!("{subject}: {error}")),
        }
    }
    let store = session.store().await?;
    for sealed in rows.sealed_columns(&*store as &dyn KeyStore).await? {
        // This key store cannot rotate values under keys that it does not have.
        if sealed.known_keys == 0 || declared.iter().any(|of| sealed.is(&of.column)) {
            continue;
        }
        found.error(
            Code::ColumnUndeclared,
            format!("{}.{}", sealed.table, sealed.column),
            format!(
                "{} of {} values that were looked at are encrypted under keys of this key store, and it is not declared: \
                 rotations leave it out, and `encx keys destroy` does not see its rows",
                sealed.known_keys, sealed.looked_at
            ),
            "declare it as [[column]] in encx.toml",
        );
    }
    Ok(())
}
