//! API tokens in real tables: a writer of the database can destroy them, but not change what they say.

mod postgres;
mod sqlite;

use encx::Error;
use encx::record::RecordError;

const TABLE: &str = "CREATE TABLE tokens (id uuid PRIMARY KEY, owner text NOT NULL, rights text NOT NULL, \
                     expires_at bigint NOT NULL, digest blob NOT NULL)";

const NOW: i64 = 1_800_000_000;

/// Asserts that the row's digest does not open, which is no verdict on the token.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: crate::document::Result<T>) {
    let error = answer.unwrap_err();
    let error = error.downcast_ref::<RecordError>().unwrap();
    let [failure] = error.failures() else {
        panic!("{error}");
    };
    assert_eq!(failure.field, "digest");
    assert!(matches!(failure.error, Error::Decrypt { .. }), "{error}");
}

/// Tests for both databases. A macro, because each compiles its own copy of the code.
macro_rules! tokens_cannot_be_changed {
    ($pool:expr, $rows:path) => {{
        use code::{Token, authenticate, issue, restrict};
        use encx::EncryptionContext;
        use encx::keys::KeyState;
        use encx::store::JobTally;
        use encx::token::ApiToken;

        use super::{NOW, assert_refused};

        let (pool, crypto) = (&$pool, &crate::document::crypto().await);
        let execute = async |sql: &str, tokens: &[&ApiToken]| {
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
            let query = tokens.iter().fold(query, |query, token| query.bind(token.id()));
            assert_eq!(query.execute(pool).await.unwrap().rows_affected(), 1, "{sql}");
        };
        let ask = async |token: &ApiToken| authenticate(crypto, pool, token.expose(), NOW).await;
        let mine = issue(crypto, pool, "eve", "read", NOW + 60).await.unwrap();
        let other = issue(crypto, pool, "ada", "admin", NOW + 60).await.unwrap();
        let found = ask(&mine).await.unwrap().unwrap();
        assert_eq!((found.owner.as_str(), found.rights.as_str()), ("eve", "read"));
        assert_eq!(ask(&other).await.unwrap().unwrap().owner, "ada");

        // Never issued, with another secret, not a token, and expired.
        let unknown = ApiToken::generate("acme").unwrap();
        assert!(ask(&unknown).await.unwrap().is_none());
        let mut guessed = mine.expose().to_owned();
        let last = if guessed.pop() == Some('0') { '1' } else { '0' };
        guessed.push(last);
        for text in [guessed.as_str(), "", "acme_1_2"] {
            assert!(
                authenticate(crypto, pool, text, NOW).await.unwrap().is_none(),
                "{text}"
            );
        }
        let late = authenticate(crypto, pool, mine.expose(), NOW + 60).await;
        assert!(late.unwrap().is_none());

        // A writer of the database edits the row of a token they hold.
        for (edit, back) in [
            ("owner = 'ada'", "owner = 'eve'"),
            ("rights = 'admin'", "rights = 'read'"),
            ("rights = ''", "rights = 'read'"),
            ("expires_at = expires_at + 1", "expires_at = expires_at - 1"),
            (
                "owner = 'ada', rights = 'admin'",
                "owner = 'eve', rights = 'read'",
            ),
        ] {
            execute(&format!("UPDATE tokens SET {edit} WHERE id = $1"), &[&mine]).await;
            assert_refused(ask(&mine).await);
            execute(&format!("UPDATE tokens SET {back} WHERE id = $1"), &[&mine]).await;
            assert!(ask(&mine).await.unwrap().is_some());
        }
        // They copy its digest into another token's row, and move its row to another id.
        let copy = "UPDATE tokens SET digest = (SELECT digest FROM tokens WHERE id = $1) WHERE id = $2";
        execute(copy, &[&mine, &other]).await;
        assert_refused(ask(&other).await);
        execute("DELETE FROM tokens WHERE id = $1", &[&other]).await;
        let rename = "UPDATE tokens SET id = $2 WHERE id = $1";
        execute(rename, &[&mine, &other]).await;
        assert_refused(ask(&other).await);
        execute(rename, &[&other, &mine]).await;

        // The service itself may change what a token says.
        restrict(crypto, pool, found, "none").await.unwrap();
        let found = ask(&mine).await.unwrap().unwrap();
        assert_eq!(found.rights, "none");

        // Jobs count it, so that its key is not destroyed, and do not change it.
        let context = EncryptionContext::from_pairs([("purpose", "tokens")]).unwrap();
        let jobs = $rows(pool.clone());
        crypto.key_manager().rotate(&context).await.unwrap();
        let job = jobs.reencrypt(crypto, Token::encx_columns()).unwrap();
        let report = job.run().await;
        assert!(
            report.is_complete() && report.run == JobTally::new(0, 0, 0),
            "{report}"
        );
        let census = jobs.census(Token::encx_columns()).unwrap();
        let counts = census.count().await.unwrap();
        let active = crypto.key_manager().list(&context).await.unwrap();
        let active = active
            .iter()
            .find(|key| key.state == KeyState::Active)
            .unwrap()
            .id;
        assert_eq!((counts.len(), counts[0].rows), (1, 1));
        assert_ne!(counts[0].key, Some(active));
        restrict(crypto, pool, found, "read").await.unwrap();
        assert_eq!(
            census.count().await.unwrap()[0].key,
            Some(active),
            "by the service"
        );
        assert!(ask(&mine).await.unwrap().is_some());
    }};
}
use tokens_cannot_be_changed;
