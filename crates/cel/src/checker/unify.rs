//! Unification: whether one type may stand where another is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// What type variables stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Bindings(HashMap<Arc<str>, Type>);

impl Bindings {
    fn find(&self, t: &Type) -> Option<&Type> {
        match t {
            Type::Param(name) => self.0.get(name),
            _ => None,
        }
    }

    pub(super) fn bind(&mut self, param: Arc<str>, t: Type) {
        self.0.insert(param, t);
    }

    /// Whether `a` may be used as `b`; bindings grow only if so.
    pub(super) fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.assignable_all(std::slice::from_ref(a), std::slice::from_ref(b))
    }

    /// The same for lists of types, all or none.
    pub(super) fn assignable_all(&mut self, a: &[Type], b: &[Type]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        let mut trial = self.clone();
        let fits = a.iter().zip(b).all(|(a, b)| trial.fits(a, b));
        if fits {
            *self = trial;
        }
        fits
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if matches!(b, Type::Param(_)) {
            let (valid, bound) = self.substitutes(a, b);
            if valid || bound {
                return valid;
            }
        }
        if matches!(a, Type::Param(_)) {
            return self.substitutes(b, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(
                    other,
                    Type::Null
                        | Type::Opaque(..)
                        | Type::Object(_)
                        | Type::Duration
                        | Type::Timestamp
                )
            }
            (Type::List(a), Type::List(b)) => self.fits(a, b),
            (Type::Map(ka, va), Type::Map(kb, vb)) => self.fits(ka, kb) && self.fits(va, vb),
            (Type::Opaque(a, pa), Type::Opaque(b, pb)) => {
                a == b && pa.len() == pb.len() && pa.iter().zip(pb).all(|(a, b)| self.fits(a, b))
            }
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether the variable `param` may stand for `t`, and whether it already stood for something.
    fn substitutes(&mut self, t: &Type, param: &Type) -> (bool, bool) {
        if t == param {
            return (true, true);
        }
        let Type::Param(name) = param else {
            return (false, false);
        };
        if let Some(have) = self.find(param).cloned() {
            if *t == have {
                return (true, true);
            }
            if !self.fits(t, &have) {
                return (false, true);
            }
            let wider = most_general(t, &have).clone();
            if !self.occurs(param, &wider) {
                self.0.insert(name.clone(), wider);
            }
            return (true, true);
        }
        if self.occurs(param, t) {
            return (false, false);
        }
        self.0.insert(name.clone(), t.clone());
        (true, false)
    }

    fn occurs(&self, param: &Type, within: &Type) -> bool {
        if param == within {
            return true;
        }
        match within {
            Type::Param(_) => self.find(within).is_some_and(|t| self.occurs(param, t)),
            Type::List(t) | Type::Type(t) => self.occurs(param, t),
            Type::Map(k, v) => self.occurs(param, k) || self.occurs(param, v),
            Type::Opaque(_, params) => params.iter().any(|t| self.occurs(param, t)),
            _ => false,
        }
    }

    /// The type with its variables replaced; free ones become `dyn` if `close` says so.
    pub(super) fn substitute(&self, t: &Type, close: bool) -> Type {
        if let Some(found) = self.find(t) {
            return self.substitute(found, close);
        }
        match t {
            Type::Param(_) if close => Type::Dyn,
            Type::List(item) => Type::list(self.substitute(item, close)),
            Type::Map(k, v) => Type::map(self.substitute(k, close), self.substitute(v, close)),
            Type::Opaque(name, params) => Type::Opaque(
                name.clone(),
                params.iter().map(|p| self.substitute(p, close)).collect(),
            ),
            Type::Type(inner) => Type::Type(Arc::new(self.substitute(inner, close))),
            _ => t.clone(),
        }
    }
}

/// The more general of two types that are known to unify.
pub(super) fn most_general<'a>(a: &'a Type, b: &'a Type) -> &'a Type {
    if less_specific(a, b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Param(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Param(_)) {
        return false;
    }
    match (a, b) {
        (Type::Opaque(a, pa), Type::Opaque(b, pb)) => {
            a == b && pa.len() == pb.len() && pa.iter().zip(pb).all(|(a, b)| less_specific(a, b))
        }
        (Type::List(a), Type::List(b)) => less_specific(a, b),
        (Type::Map(ka, va), Type::Map(kb, vb)) => less_specific(ka, kb) && less_specific(va, vb),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
