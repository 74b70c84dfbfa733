//! What MPI has selected to carry its messages.

#![allow(unsafe_code)] // Calls of C functions.

use super::call::check;
use crate::{Error, Fabric};
use mpi::ffi;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::{CStr, c_int, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

/// Where UCX writes its log and how much of it.
const UCX_LOG_FILE: &str = "UCX_LOG_FILE";
const UCX_LOG_LEVEL: &str = "UCX_LOG_LEVEL";
/// What the name of a file that is open in this process begins with.
const IN_MEMORY: &str = "/proc/self/fd/";

/// Makes UCX write down what it selects, unless the environment says already what it is to write. UCX reads these variables when it is
/// loaded, which may be before the program begins: so the program begins anew, as the same process. The log lies in memory.
///
/// # Errors
/// If it cannot.
pub fn ask_ucx() -> Result<(), Error> {
    if [UCX_LOG_FILE, UCX_LOG_LEVEL].iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let failed = |cause: std::io::Error| {
        let reason =
            format!("the program cannot begin anew to have UCX's log: {cause}; UCX_LOG_LEVEL=warn avoids it");
        Error::Failed { reason }
    };
    // It is inherited over the new beginning.
    let log = memfd_create("ucx-log", MemfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut again = Command::new(std::env::current_exe().map_err(failed)?);
    again.arg0(name).args(arguments).env(UCX_LOG_LEVEL, "info");
    again.env(UCX_LOG_FILE, format!("{IN_MEMORY}{}", log.as_raw_fd()));
    Err(failed(again.exec()))
}

/// The log of this process, if it is ours.
fn ucx_log() -> Option<String> {
    unsafe extern "C" {
        /// Of the C library.
        fn fflush(stream: *mut c_void) -> c_int;
    }
    let file = std::env::var(UCX_LOG_FILE).ok().filter(|file| file.starts_with(IN_MEMORY))?;
    // SAFETY: null stands for all streams, UCX's among them, which buffers what it writes.
    unsafe { fflush(ptr::null_mut()) };
    std::fs::read_to_string(file).ok()
}

/// What carries this process's messages, after the first of them, when the ranks are on `nodes` nodes.
pub fn fabric(library: &str, nodes: usize) -> Result<Fabric, Error> {
    let ucx = Fabric::ucx_transports(&ucx_log().unwrap_or_default());
    let devices = Fabric::open_devices(Path::new("/proc/self"), Path::new("/sys"));
    if library.starts_with("Open MPI") {
        let names = variables()?;
        return Ok(Fabric::of_open_mpi(names.iter().map(String::as_str), &ucx, devices, nodes));
    }
    let device = device();
    let over = match device.as_deref() {
        Some("ucx") => ucx,
        Some("ofi") => provider().into_iter().collect(),
        _ => Vec::new(),
    };
    Ok(Fabric { layers: device.into_iter().chain(over).collect(), devices })
}

/// The provider of libfabric that the environment names.
fn provider() -> Option<String> {
    let name = ["MPIR_CVAR_OFI_USE_PROVIDER", "FI_PROVIDER"].into_iter().find_map(std::env::var_os)?;
    Some(name.to_string_lossy().into_owned())
}

/// The names of the tool interface's variables that are valid.
fn variables() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    // SAFETY: plain out parameters; a name is cut to the length given with its buffer, and nulls stand for what is not wanted.
    unsafe {
        let (mut provided, mut count) = (0, 0);
        check("MPI_T_init_thread", ffi::MPI_T_init_thread(ffi::RSMPI_THREAD_FUNNELED, &mut provided))?;
        check("MPI_T_cvar_get_num", ffi::MPI_T_cvar_get_num(&mut count))?;
        for index in 0..count {
            let (mut name, mut length) = ([0; 256], 256);
            let (mut verbosity, mut bind, mut scope) = (0, 0, 0);
            let code = ffi::MPI_T_cvar_get_info(
                index,
                name.as_mut_ptr(),
                &mut length,
                &mut verbosity,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                &mut bind,
                &mut scope,
            );
            // Variables of components that were closed are invalid.
            if code == ffi::MPI_SUCCESS as i32 {
                names.push(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned());
            }
        }
        check("MPI_T_finalize", ffi::MPI_T_finalize())?;
    }
    Ok(names)
}

/// The device that MPICH was built for, `ucx` or `ofi`, which its version names: `MPICH Device: ch4:ucx`.
fn device() -> Option<String> {
    let text = super::call::library_text();
    let line = text.lines().find_map(|line| line.strip_prefix("MPICH Device:"))?;
    Some(line.trim().rsplit(':').next()?.to_owned())
}
