//! Ciphertexts: places, lengths, suites and contexts.

use encx::{Aad, Crypto, Field};

use super::manifest::{Content, Part, Place};
use super::{EIGHT, Golden, LOGS, OTHER_TENANT, PII, Result, Sealed, TWO_WRAPS, UNICODE, row};

impl Golden {
    /// Every kind of row id, and paths.
    pub(crate) async fn rows(&mut self, crypto: &Crypto) -> Result<()> {
        let ssn = Field::new("users", "ssn");
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        let (text, integer) = (
            |text: &str| Part::Text(text.into()),
            |digits: &str| Part::Integer(digits.into()),
        );
        let uuid_part = || Part::Uuid(uuid.into());
        let parsed: uuid::Uuid = uuid.parse()?;
        let six = (1_u8, "b", [3_u8], parsed, -5_i64, "f".to_owned());
        let six_parts = vec![
            integer("1"),
            text("b"),
            Part::Bytes("03".into()),
            uuid_part(),
            integer("-5"),
            text("f"),
        ];
        let rows: Vec<(&str, Aad, Vec<Part>)> = vec![
            ("row", ssn.row(42), vec![integer("42")]),
            ("row-negative", ssn.row(-1_i8), vec![integer("-1")]),
            (
                "row-u64-max",
                ssn.row(u64::MAX),
                vec![integer("18446744073709551615")],
            ),
            (
                "row-i128-min",
                ssn.row(i128::MIN),
                vec![integer("-170141183460469231731687303715884105728")],
            ),
            ("row-text", ssn.row("alice"), vec![text("alice")]),
            ("row-text-of-digits", ssn.row("42"), vec![text("42")]),
            ("row-uuid", ssn.row(parsed), vec![uuid_part()]),
            (
                "row-bytes",
                ssn.row([0_u8, 255, 7]),
                vec![Part::Bytes("00ff07".into())],
            ),
            (
                "row-composite",
                ssn.row(("order-7", 3)),
                vec![text("order-7"), integer("3")],
            ),
            ("row-composite-of-six", ssn.row(six), six_parts),
            ("row-unicode", ssn.row("Zoë 🦀"), vec![text("Zoë 🦀")]),
        ];
        for (name, aad, parts) in rows {
            self.seal(crypto, Sealed::text(name, PII, "123-45-6789", row(parts)), aad)
                .await?;
        }
        let paths: [(&str, &[&str]); 3] = [
            ("path", &["address", "street"]),
            ("path-unicode", &["Straße"]),
            ("path-like-a-row", &["3"]),
        ];
        for (name, path) in paths {
            let place = Place::Field {
                table: "users".into(),
                column: "profile".into(),
                row: vec![text("order-7")],
                path: path.iter().map(ToString::to_string).collect(),
            };
            let aad = Field::new("users", "profile").row_path("order-7", path);
            self.seal(crypto, Sealed::text(name, PII, "Hauptstraße 1", place), aad)
                .await?;
        }
        self.seal(
            crypto,
            Sealed::text("unbound", PII, "anywhere", Place::Unbound),
            Aad::unbound(),
        )
        .await?;
        let none = Place::Free { parts: Vec::new() };
        self.seal(
            crypto,
            Sealed::text("free-without-parts", PII, "free", none),
            Aad::free(),
        )
        .await?;
        let parts = vec![
            text("session"),
            text(""),
            Part::Bytes(String::new()),
            Part::Bytes("00".into()),
            integer("170141183460469231731687303715884105727"),
            uuid_part(),
        ];
        let aad = Aad::free()
            .text("session")
            .text("")
            .bytes([])
            .bytes([0])
            .integer(i128::MAX)
            .uuid(parsed);
        self.seal(
            crypto,
            Sealed::text("free", PII, "free", Place::Free { parts }),
            aad,
        )
        .await
    }

    /// Plaintexts of many lengths: empty, within a block, at its edges.
    pub(crate) async fn values(&mut self, crypto: &Crypto) -> Result<()> {
        for len in [0, 1, 15, 16, 17] {
            let content = if len == 0 {
                Content::Text(String::new())
            } else {
                Content::Counting(len)
            };
            self.seal_row(crypto, &format!("length-{len}"), content).await?;
        }
        self.seal_row(crypto, "not-utf8", Content::Hex("ff00fe80".into()))
            .await
    }

    pub(crate) async fn uncommitted(&mut self, crypto: &Crypto) -> Result<()> {
        for (name, content) in [
            ("suite-2-empty", Content::Text(String::new())),
            ("suite-2-short", Content::Text("without a commitment".into())),
            ("suite-2-long", Content::Counting(5000)),
        ] {
            let mut sealed = Sealed::text(name, PII, "", row(vec![Part::Integer("42".into())]));
            sealed.content = content;
            sealed.accept = vec!["uncommitted".into()];
            self.seal(crypto, sealed, Field::new("users", "ssn").row(42))
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn contexts(&mut self, crypto: &Crypto) -> Result<()> {
        for (name, context) in [
            ("context-unicode", UNICODE),
            ("context-of-eight", EIGHT),
            ("context-other-tenant", OTHER_TENANT),
            ("kek-by-alias", LOGS),
            ("two-wraps", TWO_WRAPS),
        ] {
            let place = row(vec![Part::Integer("42".into())]);
            let sealed = Sealed::text(name, context, "123-45-6789", place);
            self.seal(crypto, sealed, Field::new("users", "ssn").row(42))
                .await?;
        }
        Ok(())
    }
}
