// Slices as Cornerstone images: the loader for "pulmo:" image ids, their metadata, and loading ahead of the reader.
import { Enums, imageLoader, metaData, utilities, type Types } from "@cornerstonejs/core";
import { api, type Series } from "./api";
import type { Grid } from "./geometry";

const SCHEME = "pulmo";
const AHEAD_AT_ONCE = 4; // a browser opens six connections; two stay free for the reader's own requests

interface Source {
  studyUid: string;
  grid: Grid;
}
const sources = new Map<string, Source>();

function imageIdOf(series: Series, k: number): string {
  return `${SCHEME}:${series.version}/${k}`;
}

function find(imageId: string): { source: Source; k: number } | undefined {
  const match = /^pulmo:([0-9a-f]+)\/(\d+)$/.exec(imageId);
  const source = match ? sources.get(match[1]!) : undefined;
  return source ? { source, k: Number(match![2]) } : undefined;
}

function extremes(pixels: Int16Array): [number, number] {
  let low = 32767;
  let high = -32768;
  for (const value of pixels) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function toImage(imageId: string, series: Series, pixels: Int16Array): Types.IImage {
  const [low, high] = extremes(pixels);
  const { columns, rows } = series;
  const voxelManager = utilities.VoxelManager.createImageVoxelManager({
    width: columns,
    height: rows,
    scalarData: pixels,
    numberOfComponents: 1,
  }) as Types.IVoxelManager<number>;
  return {
    imageId,
    minPixelValue: low,
    maxPixelValue: high,
    slope: 1,
    intercept: 0,
    windowCenter: series.window_center_hu,
    windowWidth: series.window_width_hu,
    voiLUTFunction: Enums.VOILUTFunctionType.LINEAR,
    getPixelData: () => pixels,
    getCanvas: () => document.createElement("canvas"),
    rows,
    columns,
    height: rows,
    width: columns,
    color: false,
    rgba: false,
    numberOfComponents: 1,
    columnPixelSpacing: series.spacing_ijk_mm[0],
    rowPixelSpacing: series.spacing_ijk_mm[1],
    sliceThickness: series.spacing_ijk_mm[2],
    invert: false,
    photometricInterpretation: "MONOCHROME2",
    sizeInBytes: pixels.byteLength,
    dataType: "Int16Array",
    voxelManager,
  };
}

async function load(imageId: string): Promise<Types.IImage> {
  const found = find(imageId);
  if (!found) throw new Error(`unknown image ${imageId}`);
  const { series } = found.source.grid;
  const bytes = await api.slice(found.source.studyUid, series.version, found.k);
  if (bytes.byteLength !== series.columns * series.rows * 2)
    throw new Error(`Slice ${found.k} has ${bytes.byteLength} bytes.`);
  return toImage(imageId, series, new Int16Array(bytes)); // every browser's machine is little endian
}

function imagePlane({ source, k }: { source: Source; k: number }): Types.ImagePlaneModule {
  const { grid } = source;
  const { series } = grid;
  const rowCosines = grid.direction(0);
  const columnCosines = grid.direction(1);
  return {
    frameOfReferenceUID: series.series_uid,
    rows: series.rows,
    columns: series.columns,
    rowCosines,
    columnCosines,
    imageOrientationPatient: [...rowCosines, ...columnCosines],
    imagePositionPatient: grid.toLps([0, 0, k]),
    columnPixelSpacing: series.spacing_ijk_mm[0],
    rowPixelSpacing: series.spacing_ijk_mm[1],
    pixelSpacing: [series.spacing_ijk_mm[1], series.spacing_ijk_mm[0]],
    sliceThickness: series.spacing_ijk_mm[2],
  };
}

function provide(type: string, imageId: string): unknown {
  const found = typeof imageId === "string" ? find(imageId) : undefined;
  if (!found) return undefined;
  const { series } = found.source.grid;
  switch (type) {
    case Enums.MetadataModules.IMAGE_PLANE:
      return imagePlane(found);
    case Enums.MetadataModules.IMAGE_PIXEL:
      return {
        bitsAllocated: 16,
        bitsStored: 16,
        highBit: 15,
        samplesPerPixel: 1,
        pixelRepresentation: 1,
        photometricInterpretation: "MONOCHROME2",
        modality: "CT",
      };
    case Enums.MetadataModules.GENERAL_SERIES:
      return { modality: "CT", seriesInstanceUID: series.series_uid };
    case Enums.MetadataModules.MODALITY_LUT:
      return { rescaleSlope: 1, rescaleIntercept: 0, rescaleType: "HU" };
    case Enums.MetadataModules.VOI_LUT:
      return { windowCenter: series.window_center_hu, windowWidth: series.window_width_hu };
    default:
      return undefined;
  }
}

export function registerSlices(): void {
  imageLoader.registerImageLoader(SCHEME, (imageId) => ({ promise: load(imageId) }));
  metaData.addProvider(provide, 1000);
}

/** Image ids of a series by source slice. */
export function imageIds(studyUid: string, grid: Grid): string[] {
  sources.set(grid.series.version, { studyUid, grid });
  return Array.from({ length: grid.series.slices }, (_, k) => imageIdOf(grid.series, k));
}

/** Loads slices nearest to the reader first, until all are here. */
export class LoadAhead {
  private readonly waiting: Set<number>;
  private running = 0;
  private center = 0;
  private stopped = false;

  constructor(
    private readonly ids: string[],
    private readonly onLoaded: (loaded: number) => void,
  ) {
    this.waiting = new Set(ids.keys());
  }

  moveTo(index: number): void {
    this.center = index;
    this.waiting.delete(index); // the stage loads that one itself
    this.fill();
  }

  stop(): void {
    this.stopped = true;
  }

  private nearest(): number | undefined {
    let best: number | undefined;
    for (const index of this.waiting)
      if (best === undefined || Math.abs(index - this.center) < Math.abs(best - this.center)) best = index;
    return best;
  }

  private fill(): void {
    while (!this.stopped && this.running < AHEAD_AT_ONCE) {
      const index = this.nearest();
      if (index === undefined) return;
      this.waiting.delete(index);
      this.running++;
      // A slice that fails here fails again, visibly, when the reader comes to it.
      imageLoader
        .loadAndCacheImage(this.ids[index]!)
        .catch(() => undefined)
        .finally(() => {
          this.running--;
          this.onLoaded(this.ids.length - this.waiting.size - this.running);
          this.fill();
        });
    }
  }
}
