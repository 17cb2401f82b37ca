// Before the first paint, so that the page never flashes in the other colours.
const kept = localStorage.getItem("rayclassify.theme");
if (kept) document.documentElement.dataset.theme = kept;
