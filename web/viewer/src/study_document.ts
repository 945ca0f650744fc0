// What belongs to a study beside its document: the decoded series, and whether a result fits it.
import { api, ApiError, type Series, type StudyDocument } from "./api";

/** Undefined while the study is not decoded, when it cannot be, and after its images were purged. */
export async function seriesOf(studyUid: string): Promise<Series | undefined> {
  try {
    return await api.series(studyUid);
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.status === 410)) return undefined; // not yet, or no more
    throw error;
  }
}

/** Overlays belong to the slices that were analysed. */
export function overlaysFit({ result }: StudyDocument, series: Series | undefined): boolean {
  const analysed = result?.analysis?.quality?.slices;
  return (
    !series ||
    !result ||
    ((!result.series_uid || result.series_uid === series.series_uid) &&
      (analysed === undefined || analysed === series.slices))
  );
}
