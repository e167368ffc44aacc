//! Which devices a selector means: CEL over what a driver tells of a device.
//!
//! The door compiles selectors to refuse broken ones, the scheduler compiles them to choose; both
//! do it here. Who may have a device, and who has it, is not known here.

pub mod claims;
pub mod taints;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use evenkeel_cel::{Budget, Env, EvalError, Meter, Opaque, Program, Schema, Type, Value};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};

/// What evaluating a selector for one device may cost (`CELSelectorExpressionMaxCost`).
pub const MAX_COST: u64 = 1_000_000;

/// Most attributes and capacities of a device.
const PROPERTIES: u64 = 32;
/// Longest value of an attribute, in bytes.
const TEXT: u64 = 64;
/// Longest name of a driver, in bytes.
const DRIVER: u64 = 63;

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let attribute = Schema::dynamic().with_max(TEXT);
    let quantity = Schema::simple(Type::opaque("kubernetes.Quantity"));
    let domains = |value: Schema| {
        let inner = Schema::map(value).with_max(PROPERTIES);
        Schema::map(inner).with_max(PROPERTIES)
    };
    let fields = [
        ("driver", Schema::simple(Type::String).with_max(DRIVER)),
        ("attributes", domains(attribute)),
        ("capacity", domains(quantity)),
        ("allowMultipleAllocations", Schema::simple(Type::Bool)),
    ];
    let fields = fields.map(|(name, schema)| (name.to_owned(), schema));
    Env::kubernetes()
        .with_bindings()
        .with_variable("device", Schema::object("kubernetes.DRADevice", fields))
});

/// Programs that make the library's values.
static PARSERS: LazyLock<[Option<Program>; 2]> = LazyLock::new(|| {
    let env = Env::kubernetes().with_variable("text", Schema::simple(Type::String));
    ["semver(text)", "quantity(text)"].map(|source| env.compile(source).ok())
});

fn parsed(parser: usize, text: &str) -> Result<Value, String> {
    let program = PARSERS[parser].as_ref();
    let program = program.ok_or_else(|| "unsupported attribute value".to_owned())?;
    program
        .evaluate(&[("text", Value::from(text))], &mut Budget::default())
        .map_err(|error| error.to_string())
}

/// A compiled selector. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeviceSelector(Program);

impl DeviceSelector {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in the reference's words.
    pub fn compile(expression: &str) -> Result<Self, String> {
        let program = ENV
            .compile(expression)
            .map_err(|errors| format!("compilation failed: {errors}"))?;
        match program.output() {
            Type::Bool | Type::Dyn => Ok(Self(program)),
            other => Err(format!(
                "must evaluate to bool or the unknown type, not {other}"
            )),
        }
    }

    /// What it can cost at most.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.0.estimated_cost().max
    }

    /// Is the device meant?
    ///
    /// # Errors
    /// The evaluation failed, for example over an attribute that the device does not have.
    pub fn matches(&self, device: &DeviceValue) -> Result<bool, String> {
        let mut budget = Budget::new(MAX_COST, MAX_COST);
        match self
            .0
            .evaluate(&[("device", device.0.clone())], &mut budget)
        {
            Ok(Value::Bool(found)) => Ok(found),
            Ok(other) => Err(format!(
                "CEL result of type {} could not be converted to bool: type conversion error from \
                 '{0}' to 'bool'",
                other.type_name()
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A device as selectors see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeviceValue(Value);

impl DeviceValue {
    /// Reads a device of a driver.
    ///
    /// # Errors
    /// An attribute has no value that is known.
    pub fn new(driver: &str, device: &Device) -> Result<Self, String> {
        let mut attributes = Domains::default();
        for (name, attribute) in device.attributes.iter().flatten() {
            let value =
                attribute_value(attribute).map_err(|why| format!("attribute {name}: {why}"))?;
            attributes.put(driver, name, value);
        }
        let mut capacity = Domains::default();
        for (name, amount) in device.capacity.iter().flatten() {
            let value =
                parsed(1, &amount.value.0).map_err(|why| format!("capacity {name}: {why}"))?;
            capacity.put(driver, name, value);
        }
        Ok(Self(Value::map([
            ("driver", Value::from(driver)),
            ("attributes", attributes.value()),
            ("capacity", capacity.value()),
            (
                "allowMultipleAllocations",
                Value::Bool(device.allow_multiple_allocations == Some(true)),
            ),
        ])))
    }
}

fn attribute_value(attribute: &DeviceAttribute) -> Result<Value, String> {
    fn list<T>(items: &[T], one: impl Fn(&T) -> Result<Value, String>) -> Result<Value, String> {
        items
            .iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Value::list)
    }
    let version =
        |text: &str| parsed(0, text).map_err(|why| format!("parse semantic version: {why}"));
    if let Some(number) = attribute.int {
        Ok(Value::Int(number))
    } else if let Some(flag) = attribute.bool {
        Ok(Value::Bool(flag))
    } else if let Some(text) = &attribute.string {
        Ok(Value::from(text.as_str()))
    } else if let Some(text) = &attribute.version {
        version(text)
    } else if let Some(numbers) = &attribute.ints {
        list(numbers, |number| Ok(Value::Int(*number)))
    } else if let Some(flags) = &attribute.bools {
        list(flags, |flag| Ok(Value::Bool(*flag)))
    } else if let Some(texts) = &attribute.strings {
        list(texts, |text| Ok(Value::from(text.as_str())))
    } else if let Some(texts) = &attribute.versions {
        list(texts, |text| version(text))
    } else {
        Err("unsupported attribute value".to_owned())
    }
}

/// Properties by the domain of their names. A domain that nobody has spoken of is there and empty,
/// so that `device.attributes["example.com"].?model` needs no check before it.
#[derive(Debug, Default)]
struct Domains(BTreeMap<String, BTreeMap<String, Value>>);

impl Domains {
    fn put(&mut self, driver: &str, name: &str, value: Value) {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let domain = self.0.entry(domain.to_owned()).or_default();
        domain.insert(id.to_owned(), value);
    }

    fn value(self) -> Value {
        let domains = self.0.into_iter();
        Value::opaque(Known(
            domains.map(|(name, map)| (name, Value::map(map))).collect(),
        ))
    }
}

#[derive(Debug)]
struct Known(BTreeMap<String, Value>);

impl Opaque for Known {
    fn type_name(&self) -> &str {
        "map"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn field(&self, name: &str, _meter: &mut Meter) -> Option<Result<Value, EvalError>> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Map(Arc::default()));
        let found = self.0.get(name).unwrap_or(&EMPTY);
        Some(Ok(found.clone()))
    }

    fn contains(&self, item: &Value) -> Option<bool> {
        Some(item.as_str().is_some_and(|name| self.0.contains_key(name)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{DeviceSelector, DeviceValue, MAX_COST};

    fn device() -> DeviceValue {
        let device = serde_json::from_value(json!({
            "name": "gpu-0",
            "attributes": {
                "model": {"string": "a100"}, "other.example.com/slot": {"int": 3},
                "driverVersion": {"version": "1.2.3"}, "healthy": {"bool": true},
            },
            "capacity": {"memory": {"value": "40Gi"}},
        }))
        .expect("a device");
        DeviceValue::new("gpu.example.com", &device).expect("readable")
    }

    #[test]
    fn selectors_choose_as_the_documentation_says() {
        let device = device();
        let rows = [
            ("device.driver == 'gpu.example.com'", Ok(true)),
            (
                "device.attributes['gpu.example.com'].model == 'a100'",
                Ok(true),
            ),
            (
                "device.attributes['gpu.example.com'].model == 'h100'",
                Ok(false),
            ),
            ("device.attributes['other.example.com'].slot > 2", Ok(true)),
            (
                "device.attributes['gpu.example.com'].driverVersion.isGreaterThan(semver('1.2.0'))",
                Ok(true),
            ),
            (
                "device.capacity['gpu.example.com'].memory.compareTo(quantity('30Gi')) >= 0",
                Ok(true),
            ),
            (
                "cel.bind(gpu, device.attributes['gpu.example.com'], gpu.healthy && gpu.model == \
                 'a100')",
                Ok(true),
            ),
            ("'model' in device.attributes['gpu.example.com']", Ok(true)),
            ("'gpu.example.com' in device.attributes", Ok(true)),
            ("'nobody.example.com' in device.attributes", Ok(false)),
            ("has(device.attributes['nobody.example.com'].x)", Ok(false)),
            (
                "device.attributes['gpu.example.com'].?model.orValue('') == 'a100'",
                Ok(true),
            ),
            (
                "device.attributes['nobody.example.com'].x",
                Err("no such key: x".to_owned()),
            ),
        ];
        for (expression, wanted) in rows {
            let selector = DeviceSelector::compile(expression).expect(expression);
            assert_eq!(selector.matches(&device), wanted, "{expression}");
            assert!(selector.most() < MAX_COST, "{expression}");
        }
    }

    #[test]
    fn what_is_no_truth_or_no_expression_is_refused() {
        let text = DeviceSelector::compile("device.driver").expect_err("it is text");
        assert_eq!(
            text,
            "must evaluate to bool or the unknown type, not string"
        );
        let broken = DeviceSelector::compile("device.nothing == 1").expect_err("no such field");
        assert!(
            broken.starts_with("compilation failed: ERROR: <input>:1:7: undefined field 'nothing'"),
            "{broken}"
        );
    }
}
