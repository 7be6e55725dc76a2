//! Checks across fields: the pairs of contexts, and which columns there are.

use std::collections::{HashMap, HashSet};

use quote::quote;
use syn::Ident;

use crate::attributes::{Context, Faults, Pair, PairValue};
use crate::compound::Compound;
use crate::field::{Field, Role, span_of};
use crate::types;

pub(crate) fn check_context(context: &Context, fields: &[Field], faults: &mut Faults) -> Vec<Pair> {
    if context.pairs.is_empty() && context.is_whole {
        faults.add(
            context.span,
            "an encryption context has at least one pair, such as `\"purpose\" = \"pii\"`",
        );
    }
    let mut seen = HashMap::new();
    let pair = |pair: &Pair| {
        if seen.insert(pair.key.value().to_lowercase(), ()).is_some() {
            faults.add(
                pair.key.span(),
                "two pairs have this key, ignoring case; rename or remove one",
            );
        }
        if pair.key.value().to_lowercase().starts_with("encx:") {
            faults.add(
                pair.key.span(),
                "keys that begin with `encx:` belong to encx; choose another",
            );
        }
        let value = match &pair.value {
            PairValue::Literal(text) => PairValue::Literal(text.clone()),
            PairValue::Field(ident) => {
                let field = fields.iter().find(|field| field.ident == *ident);
                match field.map(|field| &field.role) {
                    Some(Role::Id { .. } | Role::Plain) => check_printed(ident, field, faults),
                    Some(_) => faults.add(
                        ident.span(),
                        "the encryption context is needed to decrypt, so its fields must be plain; keep this one \
                         unencrypted, or take another",
                    ),
                    None => faults.add(
                        ident.span(),
                        format_args!("there is no field `{ident}`; name one, or write a text in quotes"),
                    ),
                }
                PairValue::Field(ident.clone())
            }
        };
        let key = pair.key.clone();
        Pair { key, value }
    };
    context.pairs.iter().map(pair).collect()
}

/// Refuses a type that may not print the same forever, as far as its name tells.
fn check_printed(ident: &Ident, field: Option<&Field>, faults: &mut Faults) {
    let Some(ty) = field.map(|field| &field.ty) else {
        return;
    };
    if types::inside_option(ty).is_some() {
        faults.add(
            ident.span(),
            "the encryption context selects the key, so no part of it may be absent; take a field that is not an `Option`",
        );
    } else if types::is_float(ty) {
        faults.add(
            ident.span(),
            "a float prints in several forms, each of which would select another key; take an integer or a text",
        );
    }
}

/// Refuses to bind a token to a field that the encrypted struct does not hold in plain.
pub(crate) fn check_bound(fields: &[Field], faults: &mut Faults) {
    for field in fields {
        let Role::Token { bound } = &field.role else {
            continue;
        };
        let mut seen = HashSet::new();
        for ident in bound {
            let found = fields.iter().find(|field| field.ident == *ident);
            match found.map(|field| &field.role) {
                _ if !seen.insert(ident) => faults.add(ident.span(), "this field is given twice; keep one"),
                Some(Role::Plain) => {}
                Some(Role::Id { .. }) => faults.add(
                    ident.span(),
                    "every value is bound to the row's id already; leave it out",
                ),
                Some(_) => faults.add(
                    ident.span(),
                    "a token is bound to plain fields; encrypted fields are bound to the row anyway, so leave this one out",
                ),
                None => faults.add(ident.span(), format_args!("there is no field `{ident}`")),
            }
        }
    }
}

/// Refuses two fields in one column.
pub(crate) fn check_columns(fields: &[Field], compounds: &[Compound], faults: &mut Faults) {
    let mut in_aad = HashMap::new();
    let mut in_sql = HashMap::new();
    for field in fields {
        let sealed = matches!(
            field.role,
            Role::Nested { .. } | Role::Password { .. } | Role::Token { .. } | Role::Value { .. }
        );
        let before = sealed
            .then(|| in_aad.insert(field.column.value(), &field.name))
            .flatten();
        // A nested struct has the columns of its own fields.
        let is_nested = matches!(field.role, Role::Nested { .. });
        let before = before.or_else(|| {
            (!is_nested)
                .then(|| in_sql.insert(field.sql.value(), &field.name))
                .flatten()
        });
        for index in &field.indexes {
            if let Some(before) = in_sql.insert(index.sql.value(), &field.name) {
                faults.add(
                    index.sql.span(),
                    format_args!(
                        "the index of `{}` has the same column as `{before}`; give it another with `column = \"..\"`, and a \
                         `name` if the field has two",
                        field.name
                    ),
                );
            }
        }
        if let Some(before) = before {
            faults.add(
                field.column.span(),
                format_args!(
                    "`{}` and `{before}` have the same column; give one of them another with `#[encx(rename = \"..\")]`",
                    field.name
                ),
            );
        }
    }
    for Compound { index, title, .. } in compounds {
        if let Some(before) = in_sql.insert(index.sql.value(), title) {
            faults.add(
                index.sql.span(),
                format_args!(
                    "the index of `{title}` has the same column as `{before}`; give it another with `column = \"..\"`"
                ),
            );
        }
    }
    check_names(fields, compounds, faults);
    check_nested(fields, faults);
    check_borrowed(fields, faults);
}

/// Refuses references: a decrypted value must be owned. The compiler would only complain where a value is decrypted.
fn check_borrowed(fields: &[Field], faults: &mut Faults) {
    for field in fields {
        let (ty, _) = field.value_type();
        if matches!(field.role, Role::Value { .. }) && types::is_reference(ty) {
            faults.add(
                span_of(field),
                "a decrypted value cannot be borrowed; write `String`, `Vec<u8>`, or `Cow<'a, str>`, which \
                 may be borrowed for encryption",
            );
        }
    }
}

/// Refuses an index whose field name is taken in the generated struct.
fn check_names(fields: &[Field], compounds: &[Compound], faults: &mut Faults) {
    let mut names: HashSet<_> = fields.iter().map(|field| field.name.clone()).collect();
    let of_fields = fields.iter().flat_map(|field| &field.indexes);
    for index in of_fields.chain(compounds.iter().map(|compound| &compound.index)) {
        if !names.insert(index.ident.to_string()) {
            faults.add(
                index.ident.span(),
                format_args!(
                    "there are two fields `{}` in the generated struct: one belongs to an index; give the index another `name`, or \
                     rename the field and keep its column with `#[encx(rename = \"..\")]`",
                    index.ident
                ),
            );
        }
    }
}

/// Refuses nested types without fixed columns, and two fragments in the same columns.
fn check_nested(fields: &[Field], faults: &mut Faults) {
    let mut seen = HashMap::new();
    for field in fields {
        let Role::Nested { prefix } = &field.role else {
            continue;
        };
        let (ty, _) = field.value_type();
        let place = span_of(field);
        if types::is_collection(ty) {
            faults.add(
                place,
                "a column holds one value, and this type holds any number; write `#[encx(json)]` to keep \
                 all as one value, or give them a table of their own, with the id of this row in it",
            );
        } else if let Some(before) = seen.insert((quote!(#ty).to_string(), prefix), &field.name) {
            faults.add(
                place,
                format_args!(
                    "`{}` and `{before}` have the same columns; write `#[encx(nested(prefix = \"{}_\"))]` above one of \
                     them, or `#[encx(json)]`",
                    field.name, field.name
                ),
            );
        }
    }
}

/// Refuses what `sqlx::FromRow` would read wrongly or not at all, unless the user configures it.
pub(crate) fn check_from_row(fields: &[Field], faults: &mut Faults) {
    for field in fields.iter().filter(|field| !field.says_how_to_read()) {
        let Role::Nested { prefix } = &field.role else {
            continue;
        };
        let place = span_of(field);
        if !prefix.is_empty() {
            faults.add(
                place,
                "`sqlx::FromRow` reads a nested struct from columns without a prefix; remove it, or keep the field as one \
                 value with `#[encx(json)]`, or write `impl FromRow` instead of deriving it",
            );
        }
        if let (_, true) = field.value_type() {
            faults.add(
                place,
                "`sqlx::FromRow` reads no nested struct that may be absent; make its own fields `Option` instead, or keep \
                 the field as one value with `#[encx(json)]`, or write `impl FromRow` instead of deriving it",
            );
        }
    }
}
