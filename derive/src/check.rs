//! What has to agree between fields: the pairs of contexts, and which columns there are.

use std::collections::HashMap;

use crate::attributes::{Context, Faults, Pair, PairValue};
use crate::model::{Field, Role};

pub(crate) fn check_context(context: &Context, fields: &[Field], faults: &mut Faults) -> Vec<Pair> {
    if context.pairs.is_empty() {
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
                match fields.iter().find(|field| field.ident == *ident).map(|field| &field.role) {
                    Some(Role::Id { .. } | Role::Plain) => {}
                    Some(_) => faults.add(
                        ident.span(),
                        "the encryption context is needed to decrypt, so it takes plain fields only; keep this one \
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

/// Refuses two fields in one place.
pub(crate) fn check_columns(fields: &[Field], faults: &mut Faults) {
    let mut in_aad = HashMap::new();
    let mut in_sql = HashMap::new();
    for field in fields {
        let sealed = matches!(
            field.role,
            Role::Nested { .. } | Role::Password { .. } | Role::Value { .. }
        );
        let before = sealed
            .then(|| in_aad.insert(field.column.value(), &field.name))
            .flatten();
        // What is nested has the columns of its own fields.
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
}
