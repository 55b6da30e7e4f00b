"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);

  // The group at each pixel of each plane, line by line; decoded on first use.
  const decode = (layout) => {
    layout.groups ??= layout.planes.map((plane) => {
      const rows = plane.rows.map((runs) => {
        const line = [];
        for (let k = 0; k < runs.length; k += 2) {
          line.push(...Array(runs[k + 1]).fill(runs[k]));
        }
        return line;
      });
      return plane.row.map((row) => rows[row]);
    });
    return layout.groups;
  };

  const outline = (plane, group) => {
    const at = (x, y) => plane[y]?.[x] === group;
    let path = "";
    plane.forEach((line, y) => line.forEach((found, x) => {
      if (found !== group) return;
      if (!at(x, y - 1)) path += `M${x} ${y}h1`;
      if (!at(x, y + 1)) path += `M${x} ${y + 1}h1`;
      if (!at(x - 1, y)) path += `M${x} ${y}v1`;
      if (!at(x + 1, y)) path += `M${x + 1} ${y}v1`;
    }));
    return path;
  };

  for (const [number, { layout: index, columns }] of Object.entries(data.pairs)) {
    const viewer = document.querySelector(`#pair-${number} .viewer`);
    const stage = viewer.querySelector(".stage");
    const frame = viewer.querySelector(".outline");
    const lines = viewer.querySelectorAll("[data-column]");
    const hint = viewer.querySelector(".hint");
    const layout = data.layouts[index];
    const { width, height } = layout;
    let x = width >> 1, y = height >> 1, shown = null;

    const showValues = (groups) => {
      hint.hidden = true;
      for (const line of lines) {
        const { column, unit } = line.dataset;
        while (line.cells.length > 1) line.deleteCell(1);
        for (const group of groups) {
          // The first column names the group.
          const value = columns[column][group] ?? (line === lines[0] ? "none" : "");
          line.insertCell().textContent = `${value} ${value === "" ? "" : unit}`.trim();
        }
      }
    };
    const look = () => {
      const planes = decode(layout);
      const found = [...new Set(planes.map((plane) => plane[y][x]))];
      const key = found.join();
      if (key === shown) return;
      shown = key;
      showValues(found);
      const path = found[0] < 0 ? "" : outline(planes[0], found[0]);
      for (const line of frame.children) line.setAttribute("d", path);
    };

    const point = (event) => {
      const box = frame.getBoundingClientRect();
      const [right, down] = [event.clientX - box.left, event.clientY - box.top];
      if (right < 0 || down < 0 || right >= box.width || down >= box.height) return;
      x = Math.floor((right / box.width) * width);
      y = Math.floor((down / box.height) * height);
      look();
    };
    stage.addEventListener("pointermove", point);
    stage.addEventListener("pointerdown", point);

    const steps = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    };
    stage.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const plane = decode(layout)[0];
      const from = plane[y][x];
      let [i, j] = [x, y];
      while (plane[j]?.[i] === from) [i, j] = [i + step[0], j + step[1]];
      if (plane[j]?.[i] !== undefined) {
        // Move to the middle of the next group, so that the opposite key moves back.
        const next = plane[j][i];
        let length = 0;
        while (plane[j + length * step[1]]?.[i + length * step[0]] === next) length += 1;
        const half = length >> 1;
        [x, y] = [i + half * step[0], j + half * step[1]];
      }
      look();
    });
    stage.addEventListener("focus", () => {
      if (stage.matches(":focus-visible")) look();
    });
  }
}
