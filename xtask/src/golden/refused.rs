//! Ciphertexts, contexts and places that must be refused.

use std::fs;

use super::manifest::{Change, CiphertextCase, Expected, Part, Place, hex};
use super::{Golden, OTHER_TENANT, map, own, row};

impl Golden {
    pub(crate) fn refused_ciphertexts(&mut self) {
        let find = |name: &str| {
            let file = format!("ciphertext-{name}.bin");
            self.manifest
                .ciphertexts
                .iter()
                .find(|case| case.file == file)
                .unwrap()
                .clone()
        };
        let mut cases = Vec::new();
        let mut add = |name: &str, code: &str, edit: &dyn Fn(&mut CiphertextCase)| {
            let mut case = CiphertextCase {
                expect: Expected::RefusedAs(code.into()),
                ..find(name)
            };
            edit(&mut case);
            cases.push(case);
        };
        let change = |change| move |case: &mut CiphertextCase| case.change = Some(change);
        let place = |place: Place| move |case: &mut CiphertextCase| case.place = place.clone();
        let sql = |sql: &str| {
            let sql = sql.to_owned();
            move |case: &mut CiphertextCase| case.sql = Some(sql.clone())
        };
        let integer = |digits: &str| Part::Integer(digits.into());
        let text = |text: &str| Part::Text(text.into());
        let field = |table: &str, column: &str, row: Vec<Part>, path: &[&str]| Place::Field {
            table: table.into(),
            column: column.into(),
            row,
            path: path.iter().map(ToString::to_string).collect(),
        };

        // Another AAD.
        for wrong in [
            field("users", "ssn", vec![integer("43")], &[]),
            field("users", "ssn", vec![text("42")], &[]),
            field("users", "email", vec![integer("42")], &[]),
            field("customers", "ssn", vec![integer("42")], &[]),
            field("users", "ssn", vec![integer("42"), integer("42")], &[]),
            field("users", "ssn", vec![integer("42")], &["42"]),
            Place::Free {
                parts: vec![text("users"), text("ssn"), integer("42")],
            },
            Place::Unbound,
        ] {
            add("row", "decrypt", &place(wrong));
        }
        add(
            "row-composite",
            "decrypt",
            &place(row(vec![integer("3"), text("order-7")])),
        );
        add("row-text-of-digits", "decrypt", &place(row(vec![integer("42")])));
        add(
            "row-bytes",
            "decrypt",
            &place(row(vec![Part::Bytes("00ff08".into())])),
        );
        add(
            "row-uuid",
            "decrypt",
            &place(row(vec![text("01890a5d-ac96-774b-bcce-b302099a8057")])),
        );
        // A step of a path is not a part of a row's id, though their bytes are the same.
        let as_row = field("users", "profile", vec![text("order-7"), text("3")], &[]);
        add("path-like-a-row", "decrypt", &place(as_row));
        add(
            "path",
            "decrypt",
            &place(field(
                "users",
                "profile",
                vec![text("order-7")],
                &["street", "address"],
            )),
        );
        add(
            "path",
            "decrypt",
            &place(field(
                "users",
                "profile",
                vec![text("order-7")],
                &["address.street"],
            )),
        );
        add("unbound", "decrypt", &place(Place::Free { parts: Vec::new() }));
        add("free-without-parts", "decrypt", &place(Place::Unbound));

        // Another context.
        add("row", "unknown-key", &|case| case.context = map(OTHER_TENANT));
        add("row", "unknown-key", &|case| {
            case.context = map(&[("tenantId", "nobody")]);
        });
        add("row", "unknown-key", &|case| {
            case.context = [("tenantid", "t-1"), ("purpose", "pii")].map(own).into();
        });

        // Changed bytes: the header, the key's id, nonce, text, tag, commitment.
        add("row", "unknown-version", &change(Change::Set { at: 0, to: 0 }));
        add("row", "unknown-version", &change(Change::Set { at: 0, to: 2 }));
        add("row", "unknown-suite", &change(Change::Set { at: 1, to: 0 }));
        add("row", "unknown-suite", &change(Change::Set { at: 1, to: 3 }));
        add("row", "unknown-suite", &change(Change::Set { at: 1, to: 4 }));
        add("row", "suite-not-accepted", &change(Change::Set { at: 1, to: 2 }));
        add("row", "decrypt", &|case| {
            case.change = Some(Change::Set { at: 1, to: 2 });
            case.accept = vec!["uncommitted".into()];
        });
        add("row", "bad-key-id", &change(Change::Set { at: 8, to: 0x40 }));
        add("row", "bad-key-id", &change(Change::Set { at: 10, to: 0x3f }));
        add("row", "unknown-key", &change(Change::FlipBit(8 * 17)));
        for at in [18, 29, 30, 41, 42, 52, 53, 68, 69, 84, 85, 100] {
            add("row", "decrypt", &change(Change::FlipBit(8 * at)));
        }
        for keep in [0, 1, 2, 17, 18, 57, 58, 89] {
            add("row", "too-short", &change(Change::Keep(keep)));
        }
        add("row", "decrypt", &change(Change::Keep(90)));
        add("row", "decrypt", &change(Change::Keep(100)));
        add("row", "decrypt", &change(Change::Append(0)));
        add("row", "too-long", &change(Change::Extend((64 << 20) + 91)));
        add("length-0", "too-short", &change(Change::Keep(89)));
        add("length-0", "decrypt", &change(Change::FlipBit(8 * 42)));
        add("suite-2-short", "suite-not-accepted", &|case| case.accept.clear());
        for at in [18, 30, 42, 62, 77] {
            add("suite-2-short", "decrypt", &change(Change::FlipBit(8 * at)));
        }
        add("suite-2-empty", "too-short", &change(Change::Keep(57)));
        add("suite-2-short", "decrypt", &change(Change::Keep(60)));

        // Edited rows of the key store.
        let of = |name: &str| {
            let bytes = fs::read(self.folder.join(format!("ciphertext-{name}.bin"))).unwrap();
            hex(&bytes[2..18])
        };
        let id = of("row");
        add(
            "row",
            "row-edited",
            &sql(&format!(
                "UPDATE encx_data_keys SET context = '{{\"tenantId\":\"t-2\",\"purpose\":\"pii\"}}' WHERE id = x'{id}'"
            )),
        );
        add(
            "row",
            "row-edited",
            &sql(&format!("UPDATE encx_data_keys SET usage = 3 WHERE id = x'{id}'")),
        );
        add(
            "row",
            "key-mismatch",
            &sql(&format!(
                "UPDATE encx_data_keys SET key_check = zeroblob(32) WHERE id = x'{id}'"
            )),
        );
        add(
            "row",
            "kek-not-allowed",
            &sql(&format!(
                "UPDATE encx_wrapped_keys SET kek = 'local/planted' WHERE key_id = x'{id}'"
            )),
        );
        let other = of("second-version");
        // An edited sibling, and a row that was moved to another scope.
        add(
            "row",
            "row-edited",
            &sql(&format!(
                "UPDATE encx_data_keys SET context = '{{}}' WHERE id = x'{other}'"
            )),
        );
        let moved = sql(&format!(
            "UPDATE encx_data_keys SET version = 99, scope = (SELECT scope FROM encx_data_keys \
             WHERE id = x'{}') WHERE id = x'{id}'",
            of("context-other-tenant")
        ));
        add("row", "row-edited", &|case| {
            moved(case);
            case.context = map(OTHER_TENANT);
        });
        add(
            "row",
            "wrap",
            &sql(&format!(
                "UPDATE encx_wrapped_keys SET ciphertext = (SELECT ciphertext FROM encx_wrapped_keys \
             WHERE key_id = x'{other}') WHERE key_id = x'{id}'"
            )),
        );
        add(
            "row",
            "suspended",
            &sql(&format!(
                "UPDATE encx_data_keys SET state = 'suspended', suspended_from = 'deactivated' WHERE id = x'{id}'"
            )),
        );

        // States.
        let resumed = find("suspended");
        add("compromised", "compromised", &|_| ());
        add(
            "two-wraps",
            "wrap",
            &sql(&format!(
                "UPDATE encx_wrapped_keys SET ciphertext = zeroblob(121) WHERE key_id = x'{}'",
                of("two-wraps")
            )),
        );
        let one_is_enough = CiphertextCase {
            sql: Some(format!(
                "UPDATE encx_wrapped_keys SET ciphertext = zeroblob(121) WHERE kms = 'default' AND key_id = x'{}'",
                of("two-wraps")
            )),
            ..find("two-wraps")
        };
        let resumed = CiphertextCase {
            sql: Some(format!(
                "UPDATE encx_data_keys SET state = suspended_from, suspended_from = NULL WHERE id = x'{}'",
                of("suspended")
            )),
            ..resumed
        };
        for (name, code) in [
            ("suspended", "suspended"),
            ("shredded", "destroyed"),
            ("revived", "destroyed"),
            ("archive", "kek-disabled"),
        ] {
            let file = format!("ciphertext-{name}.bin");
            let case = self
                .manifest
                .ciphertexts
                .iter_mut()
                .find(|case| case.file == file)
                .unwrap();
            case.expect = Expected::RefusedAs(code.into());
        }
        let file = "ciphertext-compromised.bin";
        let compromised = self
            .manifest
            .ciphertexts
            .iter_mut()
            .find(|case| case.file == file)
            .unwrap();
        compromised.accept = vec!["compromised".into()];
        self.manifest.ciphertexts.extend([one_is_enough, resumed]);
        self.manifest.ciphertexts.extend(cases);
    }

    pub(crate) fn refused_inputs(&mut self) {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        self.manifest.refused_contexts = vec![
            vec![],
            (0..9).map(|n| (n.to_string(), n.to_string())).collect(),
            vec![pair("", "v")],
            vec![pair("k", "")],
            vec![pair("k\n", "v")],
            vec![pair("k", "a\u{85}b")],
            vec![pair("k", "\u{7f}")],
            vec![pair("k", &"é".repeat(385))],
            vec![pair(&"k".repeat(385), "v")],
            vec![pair("a", "1"), pair("a", "1")],
            vec![pair("a", "1"), pair("A", "2")],
            vec![pair("STRASSE", "1"), pair("straße", "2")],
            vec![pair("ς", "1"), pair("σ", "2")],
            vec![pair("k", "1"), pair("\u{212a}", "the Kelvin sign")],
            vec![pair("encx:key", "v")],
            vec![pair("ENCX:x", "v")],
            vec![pair("encx:", "v")],
        ];
        let field = |table: &str, column: &str, row: Vec<Part>, path: &[&str]| Place::Field {
            table: table.into(),
            column: column.into(),
            row,
            path: path.iter().map(ToString::to_string).collect(),
        };
        let seven = || vec![Part::Integer("7".into())];
        self.manifest.refused_places = vec![
            field("", "c", seven(), &[]),
            field("t", "", seven(), &[]),
            field("t", "c", vec![], &[]),
            field("t", "c", vec![Part::Text(String::new())], &[]),
            field("t", "c", vec![Part::Bytes(String::new())], &[]),
            field("t", "c", seven(), &[""]),
            field(
                "t",
                "c",
                vec![Part::Integer("170141183460469231731687303715884105728".into())],
                &[],
            ),
            Place::Free {
                parts: (0..65).map(|n: u8| Part::Integer(n.to_string())).collect(),
            },
        ];
    }
}
