//! System call filters: the default profile, profiles in the OCI form, and their compilation to
//! the kernel's BPF.
//!
//! The compiler is ours because a profile mixes actions per call (EPERM for most, ENOSYS for
//! `clone3` so that the C library falls back to `clone`), and because ranges of equal calls in a
//! search tree cost a handful of instructions per call instead of hundreds.

mod compile;
mod profile;
mod table;

use std::path::Path;

pub(crate) use compile::{Condition, Filter, Operator};

use crate::contract::RuntimeError;
use crate::sys::BpfInstruction;

/// The runtime's default filter for a container with these capabilities.
pub(crate) fn runtime_default(capabilities: u64) -> Vec<u8> {
    to_bytes(&profile::runtime_default(capabilities).compile())
}

/// A filter from a profile file in the OCI `linux.seccomp` form.
pub(crate) fn localhost(path: &Path) -> Result<Vec<u8>, RuntimeError> {
    let named = |problem: String| {
        RuntimeError::CannotRun(format!("seccomp profile {}: {problem}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| named(error.to_string()))?;
    program(&text).map_err(named)
}

/// A filter from the text of a profile.
pub(crate) fn program(profile: &[u8]) -> Result<Vec<u8>, String> {
    Ok(to_bytes(&profile::from_oci(profile)?.compile()))
}

/// A filter's file form: eight bytes an instruction, as the kernel has them in memory.
fn to_bytes(program: &[BpfInstruction]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|instruction| {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&instruction.code.to_le_bytes());
            bytes[2] = instruction.jt;
            bytes[3] = instruction.jf;
            bytes[4..].copy_from_slice(&instruction.k.to_le_bytes());
            bytes
        })
        .collect()
}

/// The inverse of what [`runtime_default`] and [`localhost`] give.
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<BpfInstruction> {
    bytes
        .chunks_exact(8)
        .map(|chunk| BpfInstruction {
            code: u16::from_le_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect()
}

#[cfg(test)]
mod tests;
