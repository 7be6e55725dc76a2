//! What the tokens of a type reveal.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::HashSet;
use syn::{GenericArgument, PathArguments, Type};

/// Returns `T` of `Option<T>`, however its path is written.
pub(crate) fn inside_option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ungroup(ty) else {
        return None;
    };
    let last = path.path.segments.last().filter(|last| last.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(inner) if arguments.args.len() == 1 => Some(inner),
        _ => None,
    }
}

/// Tells whether it is a float, as far as its name tells.
pub(crate) fn is_float(ty: &Type) -> bool {
    let inner = inside_option(ty).unwrap_or(ty);
    let Type::Path(path) = ungroup(inner) else {
        return false;
    };
    let last = path.path.segments.last();
    last.is_some_and(|last| last.ident == "f32" || last.ident == "f64")
}

/// Tells whether it is a collection, as far as its name tells.
pub(crate) fn is_collection(ty: &Type) -> bool {
    let ty = ungroup(ty);
    if let Type::Array(_) | Type::Slice(_) = ty {
        return true;
    }
    let Type::Path(path) = ty else {
        return false;
    };
    let last = path.path.segments.last().map(|last| last.ident.to_string());
    let collections = [
        "BTreeMap", "BTreeSet", "HashMap", "HashSet", "IndexMap", "SmallVec", "Vec", "VecDeque",
    ];
    last.is_some_and(|last| collections.contains(&last.as_str()))
}

/// Tells whether it is a reference.
pub(crate) fn is_reference(ty: &Type) -> bool {
    matches!(ungroup(ty), Type::Reference(_))
}

/// Looks through the invisible groups that `macro_rules!` puts around types.
fn ungroup(mut ty: &Type) -> &Type {
    while let Type::Group(group) = ty {
        ty = &group.elem;
    }
    ty
}

/// Lists the identifiers and lifetimes in tokens, such as `T` and `'a`.
pub(crate) fn names_in(tokens: impl ToTokens) -> HashSet<String> {
    let mut names = HashSet::new();
    collect(tokens.into_token_stream(), &mut names);
    names
}

fn collect(tokens: TokenStream, names: &mut HashSet<String>) {
    let mut after_apostrophe = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect(group.stream(), names),
            TokenTree::Ident(ident) if after_apostrophe => {
                names.insert(format!("'{ident}"));
            }
            TokenTree::Ident(ident) => {
                names.insert(ident.to_string());
            }
            TokenTree::Punct(ref punct) => {
                after_apostrophe = punct.as_char() == '\'';
                continue;
            }
            TokenTree::Literal(_) => {}
        }
        after_apostrophe = false;
    }
}
