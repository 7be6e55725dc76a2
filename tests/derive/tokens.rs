//! Digests of API tokens in records: bound to the columns that state a token's rights.

use encx::record::{ColumnPart, ColumnValue, RecordError};
use encx::token::{ApiToken, TokenDigest};
use encx::{Encrypt, Error};
use encx_testkit::Harness;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rights {
    Read,
    Admin,
}

impl ColumnValue for Rights {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        match self {
            Self::Read => "read".bind_to(part),
            Self::Admin => "admin".bind_to(part),
        }
    }
}

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "tokens", context("tenantId" = tenant_id))]
#[encx(encrypted(derive(Clone, Debug, PartialEq)))]
struct Token {
    #[encx(id)]
    id: Uuid,
    tenant_id: String,
    #[encx(rename = "owner")]
    account: i64,
    rights: Rights,
    scopes: Vec<String>,
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
    note: String,
    #[encx(token, bind(account, rights, scopes, expires_at))]
    digest: TokenDigest,
    #[encx(token, bind(note), rename = "former")]
    previous: Option<TokenDigest>,
}

fn row_of(token: &ApiToken) -> Token {
    Token {
        id: token.id(),
        tenant_id: "acme".to_owned(),
        account: 7,
        rights: Rights::Read,
        scopes: vec!["a".to_owned(), "bc".to_owned()],
        expires_at: chrono::DateTime::from_timestamp(1_800_000_000, 123_456_789),
        note: "laptop".to_owned(),
        digest: token.digest(),
        previous: None,
    }
}

#[track_caller]
fn assert_refused(read: Result<Token, RecordError>, field: &str) {
    let error = read.unwrap_err();
    assert_eq!(error.failures().len(), 1, "{error}");
    assert_eq!(error.failures()[0].field, field);
    assert!(
        matches!(error.failures()[0].error, Error::Decrypt { .. }),
        "{error}"
    );
}

/// One negative test for every authenticated input.
#[tokio::test]
async fn nothing_that_a_token_is_bound_to_can_be_changed() {
    let crypto = Harness::new().await.process().await;
    let [token, other] = [(); 2].map(|()| ApiToken::generate("acme").unwrap());
    let mut kept = row_of(&token);
    kept.previous = Some(other.digest());
    let row = kept.encrypt(&crypto).await.unwrap();
    let read = row.clone().decrypt(&crypto).await.unwrap();
    assert_eq!(read, kept);
    assert!(read.digest.is_of(&token) && !read.digest.is_of(&other));

    type Edit = fn(&mut EncryptedToken);
    let edits: [(Edit, &str); 9] = [
        (|row| row.account = 8, "digest"),
        (|row| row.rights = Rights::Admin, "digest"),
        (|row| row.scopes.push(String::new()), "digest"),
        (|row| row.scopes.reverse(), "digest"),
        (|row| row.scopes = vec!["ab".to_owned(), "c".to_owned()], "digest"),
        (|row| row.expires_at = None, "digest"),
        (
            |row| row.expires_at = row.expires_at.map(|at| at + chrono::TimeDelta::microseconds(1)),
            "digest",
        ),
        (|row| row.note.push('!'), "previous"),
        (|row| row.digest = row.previous.clone().unwrap(), "digest"),
    ];
    for (edit, field) in edits {
        let mut row = row.clone();
        edit(&mut row);
        assert_refused(row.decrypt(&crypto).await, field);
    }
    let mut moved = row.clone();
    moved.id = other.id();
    let error = moved.decrypt(&crypto).await.unwrap_err();
    assert_eq!(error.failures().len(), 2, "both are bound to the row");
    let copied = EncryptedToken {
        digest: row_of(&other).encrypt(&crypto).await.unwrap().digest,
        ..row.clone()
    };
    assert_refused(copied.decrypt(&crypto).await, "digest");

    // The precision that a database rounds away is not bound.
    let mut rounded = row.clone();
    rounded.expires_at = chrono::DateTime::from_timestamp(1_800_000_000, 123_456_000);
    assert!(rounded.decrypt(&crypto).await.unwrap().digest.is_of(&token));
    // The service can change any column: the digest is encrypted for the new values.
    let mut promoted = read;
    promoted.rights = Rights::Admin;
    let row = promoted.encrypt(&crypto).await.unwrap();
    assert!(row.decrypt(&crypto).await.unwrap().digest.is_of(&token));
}

#[test]
fn a_manifest_and_columns_name_what_is_bound() {
    assert_eq!(
        Token::encx_manifest(),
        "\
table tokens
id id: uuid
context tenantId = column tenant_id
field digest: token, bound to owner, rights, scopes, expires_at, in tokens.digest
field former: token, bound to note, in tokens.former
"
    );
    let columns = Token::encx_columns();
    assert_eq!(columns[0].bound, ["owner", "rights", "scopes", "expires_at"]);
    assert_eq!(columns[1].bound, ["note"]);
}
