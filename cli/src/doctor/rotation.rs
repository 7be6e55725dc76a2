//! Checks for keys that are due for rotation.

use anyhow::Result;

use crate::doctor::finding::{Check, Code, count_of};
use crate::session::Session;

/// Counts due keys. `edited_are_told` says that another check reported rows with an edited usage.
pub(crate) async fn check(session: &Session, edited_are_told: bool, found: &mut Check) -> Result<()> {
    let maintenance = session.settings.maintenance(session.manager(None).await?);
    let due = maintenance.due(1).await?;
    if due.versions > 0 {
        found.warning(
            Code::RotationDue,
            count_of(due.versions, "version"),
            "they have encrypted for longer than the rotation periods allow",
            "`encx maintain --once`, and let it run as a service or from cron; `encx keys list --due` lists them",
        );
    }
    if due.unreadable > 0 && !edited_are_told {
        found.error(
            Code::RowEdited,
            count_of(due.unreadable, "active version"),
            "their rows were edited and do not say what they are for, so that they are never rotated",
            "`encx doctor --deep` names them; restore their rows from a backup",
        );
    }
    Ok(())
}
