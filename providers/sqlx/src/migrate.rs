//! What both databases share of their migrations: the numbering, and what a wrong number means.
//!
//! Not sqlx's own migrator: that locks with session state, which a transaction pooler loses, and prepares for
//! tables of the user's.
//!
//! While a service is updated, processes of the old library and the new one use the same tables. So a migration says
//! from which version on libraries work with the tables as it leaves them, and those go on; the others refuse.

use encx_core::store::StoreError;

/// One step of the tables' history, and whether it ran. From `migrations` of a key store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStep {
    /// Its number, from 1.
    pub version: i64,
    /// What it brings, in a word, such as `keys`.
    pub name: &'static str,
    /// Whether the database has it.
    pub is_applied: bool,
    /// A script that runs and records it in a transaction, for an administrator who runs it by hand. Scripts are run in
    /// the order of their numbers.
    pub sql: String,
}

/// One step of the tables' history.
pub(crate) struct Migration {
    pub(crate) version: i64,
    /// What it brings, in a word.
    pub(crate) name: &'static str,
    /// The oldest version whose library works with the tables of this one: its own, unless this one only adds.
    pub(crate) compatible_from: i64,
    pub(crate) text: &'static str,
}

/// From this migration on the tables tell which libraries work with them.
const TELLS_COMPATIBLE: i64 = 2;

impl Migration {
    /// Describes a step of the tables in `table`, for a database whose transactions begin with `begin`.
    pub(crate) fn step(&self, found: Found, begin: &str, table: &str) -> MigrationStep {
        let Self {
            version,
            name,
            compatible_from,
            text,
        } = self;
        let text = text.trim_end();
        let mut sql = format!("{begin};\n{text}\nINSERT INTO {table} (version) VALUES ({version});\n");
        if *version >= TELLS_COMPATIBLE {
            sql.push_str(&format!(
                "UPDATE {table} SET compatible_from = {compatible_from} WHERE version = {version};\n"
            ));
        }
        sql.push_str("COMMIT;\n");
        MigrationStep {
            version: *version,
            name,
            is_applied: *version <= found.version,
            sql,
        }
    }
}

/// What the tables say of themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The last migration that ran, 0 if none did.
    pub(crate) version: i64,
    /// From which version on libraries work with them.
    pub(crate) compatible_from: i64,
}

impl Found {
    /// There are no tables.
    pub(crate) const NOTHING: Self = Self {
        version: 0,
        compatible_from: 0,
    };

    /// Says what to do if a library whose last migration is `current` does not work with these tables.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if they are missing or older, or newer and no longer compatible.
    pub(crate) fn check(self, current: i64) -> Result<(), StoreError> {
        if !self.is_behind(current)? {
            return Ok(());
        }
        let found = match self.version {
            ..1 => "no tables".to_owned(),
            version => format!("version {version}, older than this library's {current}"),
        };
        Err(StoreError::NotMigrated { found })
    }

    /// Tells whether migrations up to `current` have to run.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if the tables are newer and no longer compatible.
    pub(crate) fn is_behind(self, current: i64) -> Result<bool, StoreError> {
        let version = self.version;
        if version > current && self.compatible_from > current {
            let found = format!("version {version}, newer than this library's {current}: update the library");
            return Err(StoreError::NotMigrated { found });
        }
        Ok(version < current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version: i64, compatible_from: i64) -> Found {
        Found {
            version,
            compatible_from,
        }
    }

    #[test]
    fn newer_tables_are_used_if_they_say_that_they_may_be() {
        assert!(Found::NOTHING.is_behind(2).unwrap());
        assert!(found(1, 1).is_behind(2).unwrap());
        for fitting in [found(2, 1), found(3, 1), found(9, 2)] {
            assert!(!fitting.is_behind(2).unwrap(), "{fitting:?}");
            fitting.check(2).unwrap();
        }
        for (unfit, says) in [
            (Found::NOTHING, "no tables"),
            (found(1, 1), "older"),
            (found(3, 3), "update the library"),
        ] {
            match unfit.check(2) {
                Err(StoreError::NotMigrated { found }) => assert!(found.contains(says), "{found}"),
                other => panic!("{unfit:?} gave {other:?}"),
            }
        }
        assert!(found(3, 3).is_behind(2).is_err());
    }
}
