export function signal<T>(first: T): { value: T };
export function computed<T>(make: () => T): { readonly value: T };
export function effect(act: () => void): () => void;
