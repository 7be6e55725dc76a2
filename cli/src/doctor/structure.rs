//! Checks invariants of version rows with queries over all of them. Each returns the first rows that break one, with the
//! count of all.

use crate::doctor::database::{Database, Sql};
use crate::doctor::finding::{Check, Code, subject};
use crate::exit::describe;

const WRAP_GONE: Sql = Sql {
    postgres: "
        SELECT k.id::text, count(*) OVER () FROM encx.data_keys k
        WHERE k.state <> 'destroyed' AND NOT EXISTS (SELECT FROM encx.wrapped_keys w WHERE w.key_id = k.id)
        ORDER BY k.id LIMIT 5",
    sqlite: "
        SELECT lower(hex(k.id)), count(*) OVER () FROM encx_data_keys k
        WHERE k.state <> 'destroyed' AND NOT EXISTS (SELECT 1 FROM encx_wrapped_keys w WHERE w.key_id = k.id)
        ORDER BY k.id LIMIT 5",
};

const DESTROYED_WITH_WRAP: Sql = Sql {
    postgres: "
        SELECT k.id::text, count(*) OVER () FROM encx.data_keys k
        WHERE k.state = 'destroyed' AND EXISTS (SELECT FROM encx.wrapped_keys w WHERE w.key_id = k.id)
        ORDER BY k.id LIMIT 5",
    sqlite: "
        SELECT lower(hex(k.id)), count(*) OVER () FROM encx_data_keys k
        WHERE k.state = 'destroyed' AND EXISTS (SELECT 1 FROM encx_wrapped_keys w WHERE w.key_id = k.id)
        ORDER BY k.id LIMIT 5",
};

const TWO_ACTIVE: Sql = Sql {
    postgres: "
        SELECT min(context::text), count(*) OVER () FROM encx.data_keys WHERE state = 'active'
        GROUP BY scope HAVING count(*) > 1 ORDER BY 1 LIMIT 5",
    sqlite: "
        SELECT min(context), count(*) OVER () FROM encx_data_keys WHERE state = 'active'
        GROUP BY scope HAVING count(*) > 1 ORDER BY 1 LIMIT 5",
};

/// A scope's versions are numbered from 1, and no row is ever deleted.
const GAPS: Sql = Sql {
    postgres: "
        SELECT min(context::text), count(*) OVER () FROM encx.data_keys
        GROUP BY scope HAVING count(*) <> max(version) ORDER BY 1 LIMIT 5",
    sqlite: "
        SELECT min(context), count(*) OVER () FROM encx_data_keys
        GROUP BY scope HAVING count(*) <> max(version) ORDER BY 1 LIMIT 5",
};

/// Losing a scope's last versions leaves no gap, but the audit log names them. Tombstones are not versions.
const FORGOTTEN: Sql = Sql {
    postgres: "
        SELECT a.key_id::text, count(*) OVER () FROM encx.audit_log a
        WHERE a.what = 'added' AND a.to_state <> 'destroyed'
          AND NOT EXISTS (SELECT FROM encx.data_keys k WHERE k.id = a.key_id)
        GROUP BY a.key_id ORDER BY a.key_id LIMIT 5",
    sqlite: "
        SELECT lower(hex(a.key_id)), count(*) OVER () FROM encx_audit_log a
        WHERE a.what = 'added' AND a.to_state <> 'destroyed'
          AND NOT EXISTS (SELECT 1 FROM encx_data_keys k WHERE k.id = a.key_id)
        GROUP BY a.key_id ORDER BY a.key_id LIMIT 5",
};

/// An invariant, and the finding when rows break it.
struct Rule {
    sql: &'static Sql,
    code: Code,
    of: &'static str,
    what: &'static str,
    remedy: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        sql: &WRAP_GONE,
        code: Code::WrapGone,
        of: "data key",
        what: "its wrapped form is gone from the key store: what it encrypted cannot be read",
        remedy: "restore its rows of wrapped_keys from a backup; `encx audit list` shows who changed it last",
    },
    Rule {
        sql: &DESTROYED_WITH_WRAP,
        code: Code::DestroyedWithWrap,
        of: "data key",
        what: "it is destroyed and has a wrapped form all the same, as after a restored backup: it can be used again",
        remedy: "find out what put it there, and delete its rows of wrapped_keys",
    },
    Rule {
        sql: &TWO_ACTIVE,
        code: Code::TwoActive,
        of: "encryption context",
        what: "two of its versions are active: the index that forbids it is gone",
        remedy: "suspend one of them, and create the index data_keys_active again",
    },
    Rule {
        sql: &GAPS,
        code: Code::VersionMissing,
        of: "encryption context",
        what: "a version of its key is missing from the key store: what it encrypted cannot be read",
        remedy: "restore its rows from a backup; `encx audit list` names the versions that there were",
    },
];

const FORGOTTEN_RULE: Rule = Rule {
    sql: &FORGOTTEN,
    code: Code::VersionMissing,
    of: "data key",
    what: "the audit log knows it, and it is missing from the key store: what it encrypted cannot be read",
    remedy: "restore its rows from a backup",
};

pub(crate) async fn check(database: &Database, found: &mut Check) {
    let mut has_gaps = false;
    for rule in &RULES {
        let broken = broken(database, rule, found).await;
        has_gaps |= broken && rule.code == Code::VersionMissing;
    }
    if !has_gaps {
        broken(database, &FORGOTTEN_RULE, found).await;
    }
}

/// Reports rows that break a rule. Returns whether there are any.
async fn broken(database: &Database, rule: &Rule, found: &mut Check) -> bool {
    let (named, count) = match database.counted(rule.sql).await {
        Ok(breaking) => breaking,
        Err(error) => {
            let code = rule.code.name();
            found.not_checked(format!("{code}: {}", describe(&error)));
            return false;
        }
    };
    if named.is_empty() {
        return false;
    }
    found.error(rule.code, subject(rule.of, &named, count), rule.what, rule.remedy);
    true
}
