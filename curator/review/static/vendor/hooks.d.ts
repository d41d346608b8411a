// Types of what the page uses of Preact's hooks, for `tsc --checkJs`.
export function useState<T>(first: T | (() => T)): [T, (next: T | ((now: T) => T)) => void];
export function useEffect(act: () => void | (() => void), on?: unknown[]): void;
export function useLayoutEffect(act: () => void | (() => void), on?: unknown[]): void;
export function useRef<T>(first: T): { current: T };
export function useMemo<T>(make: () => T, on?: unknown[]): T;
export function useCallback<T>(act: T, on?: unknown[]): T;
