//! CEL, the Common Expression Language, as Kubernetes speaks it.
//!
//! Expressions are parsed, type-checked against declared variables, estimated, and evaluated
//! within a budget. Nothing here does I/O, knows a clock or an API object: callers bring schemas
//! and values, and get values and messages back. Messages are the reference's, word for word,
//! because users and tools read them.
//!
//! ```
//! use evenkeel_cel::{Budget, Env, Schema, Type, Value};
//!
//! let env = Env::kubernetes().with_variable("x", Schema::simple(Type::Int));
//! let program = env.compile("x > 1 && x < 10").expect("it compiles");
//! let value = program.evaluate(&[("x", Value::Int(5))], &mut Budget::default());
//! assert_eq!(value, Ok(Value::Bool(true)));
//! ```

mod ast;
mod checker;
mod convert;
mod cost;
mod env;
mod errors;
mod eval;
mod lexer;
mod library;
mod literal;
mod macros;
mod ops;
mod parser;
mod plan;
mod program;
mod schema;
mod time;
mod types;
mod validators;
mod value;
mod words;

pub use cost::CostEstimate;
pub use env::Env;
pub use errors::{CompileError, CompileErrors, EvalError};
pub use eval::{Activation, Budget, Meter, PER_CALL_LIMIT, RUNTIME_COST_BUDGET};
pub use library::authorizer::{
    AuthorizationQuery, Authorizer, Decision, authorizer_type, authorizer_value,
    resource_check_type, resource_check_value,
};
pub use program::Program;
pub use schema::{Schema, escape};
pub use time::{Duration, Timestamp};
pub use types::{ObjectType, Type};
pub use value::{Key, List, ListKind, Opaque, Value};
pub use words::is_no_name;
