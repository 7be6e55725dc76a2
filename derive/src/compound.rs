//! Blind indexes over several fields, after their attributes were checked.

use syn::ext::IdentExt;
use syn::{Ident, LitStr};

use crate::attributes::{Faults, OfIndex, OfPart};
use crate::field::{Field, Role};
use crate::index::{Index, Part, check_type, checked, own_name};

/// An index over several fields.
pub(crate) struct Compound {
    pub(crate) index: Index,
    /// The positions of its fields in the struct.
    pub(crate) fields: Vec<usize>,
    /// Its name in errors and documentation.
    pub(crate) title: String,
}

/// The greatest number of columns of `IndexField::compound`.
const MAX_PARTS: usize = 8;

impl Compound {
    /// Checks an index over several fields; `None` if something is missing.
    pub(crate) fn read(mut read: OfIndex, fields: &[Field], faults: &mut Faults) -> Option<Self> {
        let parts = read.fields.take().unwrap_or_default();
        if !(2..=MAX_PARTS).contains(&parts.len()) {
            faults.add(
                read.span,
                "an index above the struct is one over 2 to 8 fields: write `fields = [last_name, born]`; that of a single field \
                 goes above the field",
            );
        }
        let stem = match &read.name {
            Some(name) => own_name(name, faults),
            None => {
                faults.add(
                    read.span,
                    "an index over several fields has a name, which its methods and its column get: write `name = \"name_born\"`",
                );
                "index".to_owned()
            }
        };
        let place = read.name.as_ref().map_or(read.span, LitStr::span);
        let (mut at, mut of, mut titles) = (Vec::new(), Vec::new(), Vec::new());
        for OfPart { field, normalize } in parts {
            let normalize = checked(normalize, faults);
            let Some(index) = position(&field, fields, faults) else {
                continue;
            };
            if at.contains(&index) {
                faults.add(field.span(), "this field is given twice; keep one");
            }
            check_type(&fields[index].ty, field.span(), faults);
            titles.push(fields[index].name.clone());
            of.push(Part {
                column: fields[index].column.clone(),
                normalize,
            });
            at.push(index);
        }
        let sql = format!("{stem}_index");
        Some(Self {
            index: Index::of(read, of, stem, &sql, place, faults)?,
            fields: at,
            title: titles.join(", "),
        })
    }
}

/// Finds an encrypted field.
fn position(ident: &Ident, fields: &[Field], faults: &mut Faults) -> Option<usize> {
    let name = ident.unraw().to_string();
    let Some(at) = fields.iter().position(|field| field.name == name) else {
        faults.add(ident.span(), format_args!("there is no field `{name}`"));
        return None;
    };
    let reason = match fields[at].role {
        Role::Value { json: false } => return Some(at),
        Role::Value { json: true } => {
            "one value of JSON has many forms, so it is not indexed; index a field with a type of its own"
        }
        Role::Id { .. } | Role::Plain => {
            "this field is not encrypted: leave it out, and filter by it in the same query"
        }
        Role::Nested { .. } | Role::Password { .. } | Role::Token { .. } => {
            "an index is over encrypted fields of this struct; leave this one out"
        }
    };
    faults.add(ident.span(), reason);
    None
}
