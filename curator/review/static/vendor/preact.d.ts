export const h: any;
export function render(what: any, where: HTMLElement): void;
