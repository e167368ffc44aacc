//! The status of claims: who has which devices, and what drivers say of them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::capacity::binding;
use super::claim::{
    CONFIG_MAX, Requests, pool_name, reference, references, requests, toleration as toleration_of,
};
use super::{at_most, configuration, distinct};
use crate::field::{ErrorList, FieldError};
use crate::kinds::pod;
use crate::kinds::storage::csi_driver;
use crate::object::{self, child, fields};
use crate::validation::{self, Cursor, conditions, required};

const RESERVED_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
const CONDITIONS_MAX: usize = 8;
const DATA_MAX: usize = 10 * 1024;
const IPS_MAX: usize = 16;
const INTERFACE_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;

/// Which device, and which share of it.
type DeviceKey = [String; 4];

fn key(of: &Value) -> DeviceKey {
    ["driver", "pool", "device", "shareID"].map(|name| object::text(of, &[name]).to_owned())
}

/// Devices that are not allocated any more lose their status.
pub(super) fn drop_deallocated(new: &mut Value, old: &Value) {
    let allocated = |object: &Value| -> BTreeSet<DeviceKey> {
        let path = ["status", "allocation", "devices", "results"];
        object::list(object, &path).iter().map(key).collect()
    };
    let gone: BTreeSet<DeviceKey> = allocated(old)
        .difference(&allocated(new))
        .cloned()
        .collect();
    if gone.is_empty() {
        return;
    }
    let status = fields(child(new, "status"));
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|at| !gone.contains(&key(at)));
        if devices.is_empty() {
            status.remove("devices");
        }
    }
}

/// Checks a status that is written.
pub(super) fn status(new: &Value, old: &Value, out: &mut ErrorList) {
    let (at, before) = (
        Cursor::root(new).child("status"),
        Cursor::root(old).child("status"),
    );
    at_most(&at, "reservedFor", RESERVED_MAX, out);
    for consumer in at.items("reservedFor") {
        for name in ["resource", "name", "uid"] {
            required(&consumer, name, out);
        }
    }
    distinct(at.items("reservedFor"), |at| at.text("uid").to_owned(), out);
    device_statuses(&at, out);
    if !at.list("reservedFor").is_empty() {
        if !at.has("allocation") {
            out.push(FieldError::forbidden(
                &at.at("reservedFor"),
                "may not be specified when `allocated` is not set",
            ));
        } else if object::deletion_timestamp(new).is_some()
            && !at
                .list("reservedFor")
                .iter()
                .all(|consumer| before.list("reservedFor").contains(consumer))
        {
            out.push(FieldError::forbidden(
                &at.at("reservedFor"),
                "new entries may not be added while `deallocationRequested` or \
                 `deletionTimestamp` are set",
            ));
        }
    }
    match (at.get("allocation"), before.has("allocation")) {
        (Some(allocation), true) => validation::immutable(
            allocation.value,
            before.raw("allocation"),
            &allocation.path,
            out,
        ),
        (Some(allocation), false) => {
            let devices = Cursor::root(new).child("spec").child("devices");
            self::allocation(&allocation, &requests(&devices), out);
        }
        (None, _) => {}
    }
}

fn allocation(at: &Cursor<'_>, known: &Requests<'_>, out: &mut ErrorList) {
    let devices = at.child("devices");
    at_most(&devices, "results", RESULTS_MAX, out);
    for result in devices.items("results") {
        reference(&result.child("request"), known, out);
        csi_driver(result.text("driver"), &result.at("driver"), out);
        pool_name(&result, "pool", out);
        validation::dns_label(result.text("device"), &result.at("device"), out);
        for toleration in result.items("tolerations") {
            toleration_of(&toleration, out);
        }
        binding(&result, out);
        share(&result, out);
    }
    at_most(&devices, "config", 2 * CONFIG_MAX, out);
    for config in devices.items("config") {
        validation::required_one_of(&config, "source", &["FromClaim", "FromClass"], out);
        references(&config, known, out);
        configuration(&config, out);
    }
    if let Some(selector) = at.get("nodeSelector") {
        pod::validate_node_selector(&selector, out);
    }
}

/// Checks the name of a share of a device.
fn share(at: &Cursor<'_>, out: &mut ErrorList) {
    if !at.has("shareID") {
        return;
    }
    let (text, path) = (at.text("shareID"), at.at("shareID"));
    if uuid::Uuid::try_parse(text).is_err() {
        let why = match text.len() {
            32 | 36 | 38 | 45 => "invalid UUID format".to_owned(),
            length => format!("invalid UUID length: {length}"),
        };
        let why = format!("error validating uid: {why}");
        out.push(FieldError::invalid(&path, text, &why));
    } else if text.len() != 36 || text != text.to_lowercase() {
        out.push(FieldError::invalid(
            &path,
            text,
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with \
             lowercase hexadecimal characters",
        ));
    }
}

/// Checks what drivers say of devices.
fn device_statuses(status: &Cursor<'_>, out: &mut ErrorList) {
    let devices = status.child("allocation").child("devices");
    let allocated: BTreeSet<DeviceKey> = devices.list("results").iter().map(key).collect();
    for at in status.items("devices") {
        csi_driver(at.text("driver"), &at.at("driver"), out);
        pool_name(&at, "pool", out);
        validation::dns_label(at.text("device"), &at.at("device"), out);
        share(&at, out);
        let own = key(at.value);
        if !allocated.contains(&own) {
            let text = "must be an allocated device in the claim";
            out.push(FieldError::invalid_shown(&at.path, &shown(&own), text));
        }
        at_most(&at, "conditions", CONDITIONS_MAX, out);
        conditions(&at, out);
        if let Some(data) = at.get("data") {
            if data.value.to_string().len() > DATA_MAX {
                out.push(FieldError::too_long(&data.path, DATA_MAX));
            } else if !data.value.is_object() {
                out.push(FieldError::invalid(
                    &data.path,
                    "<value omitted>",
                    "must be a valid JSON object",
                ));
            }
        }
        if let Some(network) = at.get("networkData") {
            network_data(&network, out);
        }
    }
    let own = |at: &Cursor<'_>| shown(&key(at.value));
    distinct(status.items("devices"), own, out);
}

fn shown([driver, pool, device, share]: &DeviceKey) -> String {
    if share.is_empty() {
        format!("{driver}/{pool}/{device}")
    } else {
        format!("{driver}/{pool}/{device}/{share}")
    }
}

fn network_data(at: &Cursor<'_>, out: &mut ErrorList) {
    let longest = [
        ("interfaceName", INTERFACE_MAX),
        ("hardwareAddress", HARDWARE_ADDRESS_MAX),
    ];
    for (name, most) in longest {
        if at.text(name).len() > most {
            out.push(FieldError::too_long(&at.at(name), most));
        }
    }
    at_most(at, "ips", IPS_MAX, out);
    for address in at.items("ips") {
        let text = address.value.as_str().unwrap_or_default();
        let parts = text.split_once('/').and_then(|(ip, bits)| {
            let ip: std::net::IpAddr = ip.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            Some((ip, bits))
        });
        let good = parts.is_some_and(|(ip, bits)| bits <= if ip.is_ipv4() { 32 } else { 128 });
        if !good {
            out.push(FieldError::invalid(
                &address.path,
                text,
                "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            ));
        }
    }
    let text = |item: &Cursor<'_>| item.value.as_str().unwrap_or_default().to_owned();
    distinct(at.items("ips"), text, out);
}
