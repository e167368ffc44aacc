//! Pods scaled by measured use: the HorizontalPodAutoscaler loop.
