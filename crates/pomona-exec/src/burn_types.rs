//! The Burn types behind [`crate::Tensor`], named once.

pub(crate) use burn::backend::ops::{ActivationOps, FloatTensorOps, IntTensorOps, ModuleOps};
pub(crate) use burn::backend::{
    AutodiffBackend, Dispatch as B, DispatchDevice, DispatchTensor as D, TensorMetadata,
};
use burn::backend::{BackendTensor, DType, DispatchKindConversion, Flex, flex::FlexTensor, flex::Layout};
use burn::tensor::{Bytes, Shape};

/// The CPU tensor behind a value that no tape tracks, its elements one behind the other, in a buffer that may hold more; none on
/// another device or under autodiff.
pub(crate) fn host(tensor: &D) -> Option<FlexTensor> {
    match <D as DispatchKindConversion<Flex>>::try_into_backend(tensor.clone()).ok()? {
        BackendTensor::Float(t) if t.dtype() == DType::F32 => Some(in_order(t)),
        _ => None,
    }
}

/// Whether [`host`] has something to give.
pub(crate) fn is_host(tensor: &D) -> bool {
    let found = <D as DispatchKindConversion<Flex>>::try_into_backend(tensor.clone());
    matches!(found, Ok(BackendTensor::Float(t)) if t.dtype() == DType::F32)
}

/// The tensor with its elements one behind the other. Burn's own `to_contiguous` copies what is a part of a larger buffer, too.
pub(crate) fn in_order(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// A CPU tensor without a copy.
pub(crate) fn from_host(values: Vec<f32>, shape: &[usize]) -> D {
    let flex = FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::from(shape.to_vec())),
        DType::F32,
    );
    <D as DispatchKindConversion<Flex>>::from_backend(BackendTensor::Float(flex))
}

/// Calls `f` on a CPU tensor's floats, which are copied first where another tensor shares them. Other tensors come back as
/// they are.
pub(crate) fn update_host(tensor: D, f: impl FnOnce(&mut [f32])) -> D {
    let back = tensor.clone();
    match <D as DispatchKindConversion<Flex>>::try_into_backend(tensor) {
        Ok(BackendTensor::Float(t)) if t.dtype() == DType::F32 => {
            drop(back);
            let mut t =
                if t.is_contiguous() && t.layout().start_offset() == 0 { t } else { t.to_contiguous() };
            let n = t.layout().num_elements();
            f(&mut t.storage_mut::<f32>()[..n]);
            <D as DispatchKindConversion<Flex>>::from_backend(BackendTensor::Float(t))
        }
        _ => back,
    }
}
