//! Names that the derive chooses, and all names that a struct's fields may have.

use encx::password::PasswordParams;
use encx::record::Password;
use encx::{Encrypt, EncryptionContext};
use encx_test_support::HarnessExt;
use encx_testkit::Harness;

/// Its fields have the names of the generated methods' parameters and variables.
#[derive(Encrypt, Debug)]
#[encx(table = "names")]
#[encx(context(
    "a" = crypto,
    "b" = context,
    "c" = rows,
    "d" = value,
    "e" = password,
    "f" = hash,
    "g" = aad,
    "h" = row
))]
#[encx(index(name = "both", fields = [part_0, out], bits = 16))]
struct Names {
    #[encx(id)]
    id: i64,
    #[encx(id)]
    field_0: i64,
    crypto: String,
    context: String,
    rows: String,
    value: String,
    password: String,
    hash: String,
    aad: String,
    row: String,
    sought: String,
    record: String,
    #[encx(encrypt, index(bits = 16, context("a" = sought, "b" = record, "c" = value, "d" = rows, "e" = crypto)))]
    part_0: Option<String>,
    #[encx(encrypt)]
    out: String,
    #[encx(encrypt)]
    sealed: String,
    #[encx(encrypt)]
    opened: Option<String>,
    #[encx(password)]
    secret: Password,
    #[encx(password(context("a" = context, "b" = password)))]
    pin: Option<Password>,
}

#[tokio::test]
async fn fields_may_be_called_as_parameters_and_variables_are() {
    let text = |text: &str| text.to_owned();
    let names = Names {
        id: 1,
        field_0: 2,
        crypto: text("of crypto"),
        context: text("of context"),
        rows: text("of rows"),
        value: text("of value"),
        password: text("of password"),
        hash: text("of hash"),
        aad: text("of aad"),
        row: text("of row"),
        sought: text("of sought"),
        record: text("of record"),
        part_0: Some(text("of part_0")),
        out: text("of out"),
        sealed: text("of sealed"),
        opened: Some(text("of opened")),
        secret: Password::new("secret"),
        pin: Some(Password::new("1234")),
    };
    let harness = Harness::new().await;
    let quick = PasswordParams::insecure_new(64, 1, 1).unwrap();
    let builder = harness.builder();
    let crypto = builder.password_params(quick).build().await.unwrap();
    let row = names.encrypt(&crypto).await.unwrap();
    let read = row.clone().decrypt(&crypto).await.unwrap();
    assert_eq!((read.id, read.field_0), (1, 2));
    assert_eq!(
        (read.part_0.as_deref(), read.out.as_str()),
        (Some("of part_0"), "of out")
    );
    assert_eq!(
        (read.sealed.as_str(), read.opened.as_deref()),
        ("of sealed", Some("of opened"))
    );

    // Each parameter matches its field, in the order of the context.
    let all = [
        "crypto", "context", "rows", "value", "password", "hash", "aad", "row",
    ];
    let [a, b, c, d, e, f, g, h] = all.map(|name| format!("of {name}"));
    let (s, r) = ("of sought", "of record");
    let terms = Names::part_0_terms(&crypto, s, r, &d, &c, &a, "of part_0");
    assert!(terms.await.unwrap().contains(&row.part_0_index.unwrap()));
    let rows = [row.clone()];
    let found = Names::matching_part_0(&crypto, s, r, &d, &c, &a, rows.clone(), "of part_0");
    assert_eq!(found.await.unwrap().len(), 1);
    let refused = Names::matching_part_0(&crypto, r, s, &d, &c, &a, rows.clone(), "of part_0");
    assert!(refused.await.is_err());
    let pairs = ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(all);
    let pairs = pairs.map(|(key, name)| (key, format!("of {name}")));
    let context = EncryptionContext::from_pairs(pairs).unwrap();
    let found = Names::matching_part_0_in(&crypto, &context, s, r, &d, &c, &a, rows.clone(), "of part_0");
    assert_eq!(found.await.unwrap().len(), 1);
    let both = ("of part_0", "of out");
    let terms = Names::both_terms(&crypto, &a, &b, &c, &d, &e, &f, &g, &h, both);
    assert!(terms.await.unwrap().contains(&row.both_index.unwrap()));
    let found = Names::matching_both(&crypto, &a, &b, &c, &d, &e, &f, &g, &h, rows, both);
    assert_eq!(found.await.unwrap().len(), 1);

    let verdict = row.verify_secret(&crypto, &a, &b, &c, &d, &e, &f, &g, &h, "secret");
    assert!(verdict.await.unwrap().is_match());
    let verdict = row.verify_pin(&crypto, &b, &e, "1234").await.unwrap();
    assert!(verdict.is_match());
    let verdict = row
        .verify_pin_in(&crypto, &context, &b, &e, "1234")
        .await
        .unwrap();
    assert!(verdict.is_match());
    let hash = row.hash_secret(&crypto, &a, &b, &c, &d, &e, &f, &g, &h, "another");
    let row = EncryptedNames {
        secret: hash.await.unwrap(),
        ..row
    };
    let verdict = row.verify_secret(&crypto, &a, &b, &c, &d, &e, &f, &g, &h, "another");
    assert!(verdict.await.unwrap().is_match());
}

mod elsewhere {
    use encx::Encrypt;

    /// Visible in this crate, except one field that is private.
    #[derive(Encrypt)]
    #[encx(table = "notes", context("purpose" = "notes"))]
    pub(crate) struct Note {
        #[encx(id)]
        pub(crate) id: i64,
        #[encx(encrypt, index(bits = 64))]
        pub(crate) title: String,
        #[encx(encrypt)]
        text: String,
    }

    impl Note {
        pub(crate) fn new(id: i64, title: &str) -> Self {
            let (title, text) = (title.to_owned(), "hidden".to_owned());
            Self { id, title, text }
        }

        pub(crate) fn text(&self) -> &str {
            &self.text
        }
    }
}

/// `derive/tests/ui/visibility.rs` shows that private items stay private.
#[tokio::test]
async fn the_struct_that_is_written_is_seen_where_the_other_is() {
    let crypto = Harness::new().await.process().await;
    let note = elsewhere::Note::new(7, "title");
    let row: elsewhere::EncryptedNote = note.encrypt(&crypto).await.unwrap();
    let terms = elsewhere::Note::title_terms(&crypto, "title").await.unwrap();
    assert!(terms.contains(&row.title_index) && row.id == 7);
    assert_ne!(row.title.as_bytes(), b"title");
    assert!(format!("{:?}", row.clone()).starts_with("EncryptedNote"));
    assert_eq!(row.decrypt(&crypto).await.unwrap().text(), "hidden");
}

/// Names of the prelude that a module may redefine.
mod shadowed {
    #![allow(dead_code, reason = "they have to be there, not to be used")]

    use encx::record::Password;
    use encx::{Crypto, Encrypt};

    pub(super) struct Vec;
    pub(super) struct Box;
    pub(super) struct Result;
    pub(super) enum Some {}
    pub(super) enum None {}
    pub(super) struct Ok;
    pub(super) struct Err;
    pub(super) trait Clone {}
    pub(super) trait Into {}
    pub(super) trait IntoIterator {}
    pub(super) trait AsRef {}
    mod core {}
    mod std {}

    #[derive(Encrypt)]
    #[encx(table = "shadows", context("id" = id))]
    #[encx(index(name = "both", fields = [text, note], bits = 64))]
    pub(super) struct Shadow {
        #[encx(id)]
        pub(super) id: i64,
        #[encx(encrypt, index(bits = 64, context("purpose" = "login")))]
        pub(super) text: String,
        #[encx(encrypt)]
        pub(super) note: Option<String>,
        #[encx(password)]
        pub(super) password: Option<Password>,
    }

    pub(super) async fn note_of(shadow: &Shadow, crypto: &Crypto) -> Option<String> {
        let row = shadow.encrypt(crypto).await.unwrap();
        row.decrypt(crypto).await.unwrap().note
    }
}

#[tokio::test]
async fn names_of_the_prelude_may_be_used_otherwise() {
    let crypto = Harness::new().await.process().await;
    let shadow = shadowed::Shadow {
        id: 1,
        text: "text".to_owned(),
        note: Some("note".to_owned()),
        password: None,
    };
    assert_eq!(shadowed::note_of(&shadow, &crypto).await.as_deref(), Some("note"));
}
