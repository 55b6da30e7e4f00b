"use strict";
document.documentElement.classList.add("js");
for (const viewer of document.querySelectorAll(".viewer")) {
  const views = [...viewer.querySelectorAll(".view")];
  const strength = viewer.querySelector(".strength input");

  const show = () => {
    const chosen = viewer.querySelector("input[type=radio]:checked").value;
    const shown = views.find((view) => view.dataset.view === chosen);
    const under = shown.dataset.over;
    for (const view of views) {
      view.classList.toggle("shown", view === shown);
      view.classList.toggle("under", view.dataset.view === under);
      view.querySelector("img").style.opacity = "";
    }
    if (strength) {
      strength.disabled = !under;
      strength.parentElement.classList.toggle("idle", !under);
      if (under) shown.querySelector("img").style.opacity = strength.value / 100;
    }
  };
  viewer.addEventListener("input", show);
  show();
}
